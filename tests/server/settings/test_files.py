"""Files that decide who may do what are read only if nobody else can have written them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remsvc.server.settings.files import UntrustedFileError, read_trusted_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX")

needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to change owners")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_bytes(b"content\n")
    return path


def refused(path: Path, because: str) -> None:
    with pytest.raises(UntrustedFileError, match=because):
        read_trusted_file(path)


def test_a_file_of_the_own_user_is_read(file: Path) -> None:
    read = read_trusted_file(file)
    assert (read.content, read.readable_by_all) == (b"content\n", False)


def test_that_everybody_may_read_it_is_told(file: Path) -> None:
    file.chmod(0o644)
    assert read_trusted_file(file).readable_by_all


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666, 0o777])
def test_a_file_that_others_can_write_to_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    refused(file, "others cannot write to")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_can_write_to_is_refused(file: Path, mode: int) -> None:
    """They could put another file in its place."""
    file.parent.chmod(mode)
    try:
        refused(file, "others cannot write to")
    finally:
        file.parent.chmod(0o700)


def test_any_directory_on_the_way_counts(file: Path) -> None:
    inner = file.parent / "open" / "closed"
    inner.mkdir(parents=True)
    (inner / "tokens").write_bytes(b"x\n")
    assert read_trusted_file(inner / "tokens").content == b"x\n"
    inner.parent.chmod(0o777)
    refused(inner / "tokens", "others cannot write to")


def test_a_sticky_directory_is_as_safe_as_the_file(file: Path) -> None:
    file.parent.chmod(0o1777)
    try:
        assert read_trusted_file(file).content == b"content\n"
    finally:
        file.parent.chmod(0o700)


def test_an_own_symbolic_link_is_followed(file: Path) -> None:
    """Secrets are mounted as links, which are replaced to change all files at once."""
    (file.parent / "link").symlink_to("tokens")
    (file.parent / "absolute").symlink_to(file.parent / "link")
    assert read_trusted_file(file.parent / "absolute").content == b"content\n"


def test_a_symbolic_link_into_an_open_directory_is_refused(file: Path) -> None:
    swap = file.parent / "swap"
    swap.mkdir()
    (swap / "tokens").write_bytes(b"evil\n")
    link = file.parent / "link"
    link.symlink_to(swap / "tokens")
    assert read_trusted_file(link).content == b"evil\n"
    swap.chmod(0o777)
    refused(link, "others cannot write to")


def test_the_way_through_parents_is_checked_too(file: Path) -> None:
    swap = file.parent / "swap"
    (swap / "in").mkdir(parents=True)
    link = file.parent / "link"
    link.symlink_to("swap/in/../../tokens")
    assert read_trusted_file(link).content == b"content\n"
    swap.chmod(0o777)
    refused(link, "others cannot write to")


def test_a_circle_of_links_ends(file: Path) -> None:
    (file.parent / "a").symlink_to("b")
    (file.parent / "b").symlink_to("a")
    refused(file.parent / "a", "symbolic links")


@needs_root
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 65534, 65534)
    refused(file, "root's or the server's user")


@needs_root
def test_a_symbolic_link_of_another_user_is_refused(file: Path) -> None:
    """In a directory with the sticky bit, anybody may make one."""
    file.parent.chmod(0o1777)
    link = file.parent / "link"
    link.symlink_to("tokens")
    assert read_trusted_file(link).content == b"content\n"
    os.lchown(link, 65534, 65534)
    refused(link, "symbolic link of another user")


@needs_root
def test_a_directory_of_another_user_is_refused(file: Path) -> None:
    os.chown(file.parent, 65534, 65534)
    refused(file, "directory of root's or the server's user")


def test_what_is_no_regular_file_is_refused(file: Path) -> None:
    fifo = file.parent / "fifo"
    os.mkfifo(fifo, 0o600)
    refused(fifo, "regular file")  # and does not wait for a writer
    refused(file.parent, "directory")
    refused(Path("/dev/null"), "regular file|others cannot write to")
    refused(file.parent / "nowhere", "No such file")


def test_a_long_file_is_refused(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(17 * 1024 * 1024)
    refused(file, "at most")
