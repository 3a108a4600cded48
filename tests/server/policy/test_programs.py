"""What an attacker tries against a list of programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remsvc.server.policy.programs import Program, permitting, plain_path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="without a shell, programs run on POSIX only")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a program, and links out of it and into it."""
    folder = tmp_path.resolve() / "bin"
    folder.mkdir()
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "alias").symlink_to("tool")
    (folder / "shell").symlink_to("/bin/sh")
    (folder / "around").symlink_to("../elsewhere")
    (folder / "loop").symlink_to("loop")
    (folder / "below").mkdir()
    (folder / "below" / "tool").write_text("")
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "way").symlink_to(folder)
    return folder


def permits(listed: str, path: str) -> bool:
    plain = plain_path(path)
    return plain is not None and permitting([Program.parse(listed)], plain) is not None


@pytest.mark.parametrize(
    "path",
    [
        "rsync",
        "./rsync",
        "bin/rsync",
        "",
        ".",
        "../usr/bin/rsync",
        "~/rsync",
        " /usr/bin/rsync",
        "\t/usr/bin/rsync",
    ],
)
def test_a_path_that_is_not_absolute_is_none(path: str) -> None:
    assert plain_path(path) is None


@pytest.mark.parametrize(
    "path",
    ["/usr/bin/rsync", "//usr/bin/rsync", "/usr//bin/./rsync", "/usr/bin/../bin/rsync", "/../usr/bin/rsync"],
)
def test_the_plain_form_is_what_is_started(path: str) -> None:
    assert plain_path(path) == "/usr/bin/rsync"
    assert permits("/usr/bin/rsync", path)


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/rsync2",
        "/usr/bin",
        "/usr/bin/rsync/x",
        "/usr/bin/RSYNC",
        "/usr/bin/rsync ",
        "/usr/bin/rsync\n",
        "/usr/bin/rsync/../sh",
        "/usr/bin/../../bin/sh",
        "/usr/bin/rsync\0",
        "/usr/bin/r\u200bsync",
    ],
)
def test_another_path_is_another_program(path: str) -> None:
    assert not permits("/usr/bin/rsync", path)


def test_the_links_of_the_root_folder_are_known() -> None:
    for link in ("bin", "sbin"):
        path = Path("/", link)
        if path.is_symlink():
            assert permits(f"{path}/x", f"{path.resolve()}/x")
            assert permits(f"{path.resolve()}/x", f"{path}/x")


def test_a_folder_permits_what_is_in_it(folder: Path) -> None:
    assert permits(f"{folder}/", f"{folder}/tool")
    assert permits(f"{folder}/", f"{folder}/alias")
    assert permits(f"{folder}/", f"{folder}/below/../tool")


@pytest.mark.parametrize(
    "name",
    [
        "shell",
        "around",
        "loop",
        "missing",
        "below/tool",
        "..",
        ".",
        "",
        "../elsewhere",
        "tool/../../elsewhere",
    ],
)
def test_a_folder_permits_nothing_else(folder: Path, name: str) -> None:
    assert not permits(f"{folder}/", f"{folder}/{name}")


def test_a_link_elsewhere_is_another_path(folder: Path) -> None:
    assert not permits(f"{folder}/", f"{folder.parent}/way/tool")
    assert not permits(f"{folder}/tool", f"{folder.parent}/way/tool")
    assert not permits(f"{folder}/tool", f"{folder}/alias")


def test_a_link_may_lead_to_what_is_listed_too(folder: Path) -> None:
    elsewhere = Program.parse(f"{folder.parent}/elsewhere")
    assert permitting([Program.parse(f"{folder}/"), elsewhere], f"{folder}/around")


def test_a_listed_link_is_permitted_wherever_it_leads(folder: Path) -> None:
    assert permits(f"{folder}/shell", f"{folder}/shell")


def test_a_program_that_goes_by_many_names_is_permitted_by_those_listed(tmp_path: Path) -> None:
    """As with busybox: the file is the same, what it does is told by its name."""
    box = tmp_path.resolve() / "busybox"
    box.write_text("")
    for name in ("ls", "sh"):
        (box.parent / name).symlink_to(box)
    assert permits(f"{box.parent}/ls", f"{box.parent}/ls")
    assert not permits(f"{box.parent}/ls", f"{box.parent}/sh")
    assert not permits(f"{box.parent}/ls", str(box))


@pytest.mark.parametrize("text", ["", "/", "//", "rsync", "bin/", "./x", "/usr/.."])
def test_what_cannot_be_listed(text: str) -> None:
    with pytest.raises(ValueError):
        Program.parse(text)
