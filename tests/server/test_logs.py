"""A log line is one line, whatever a caller sends."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.server.logs import Logs, fields


@given(st.text())
def test_a_value_cannot_forge_a_line_or_a_field(text: str) -> None:
    line = fields(cmd=text, rc=0)
    assert line.isascii()
    assert line.isprintable()
    assert re.fullmatch(r"""(cmd=("([^"\\]|\\.)*"|[^ "=]+) )?rc=0""", line)


def test_nothing_forges_a_line_by_whatever_way_it_comes_into_the_log(tmp_path: Path) -> None:
    """Also what nobody thought of: the text of an error, a traceback, another library's message."""
    file = tmp_path / "server.log"
    forged = "x\n2030-01-01T00:00:00.000Z INFO remsvc.server forged\r\x1b]0;owned\x07\x9b\u2028\x7f"
    with Logs(logging.INFO, file):
        logging.getLogger("test").error("%s", forged)
        try:
            raise ValueError(forged)
        except ValueError:
            logging.getLogger("test").exception("caught")
    text = file.read_text()
    assert all(character == "\n" or character.isprintable() for character in text)
    lines = text.splitlines()
    assert [line.split()[3] for line in lines if not line.startswith("    ")] == ["x", "caught"]
    assert sum("forged" in line for line in lines) >= 2


def test_empty_values_are_left_out_and_long_ones_cut() -> None:
    assert fields(a="", b=1, c="x y") == 'b=1 c="x y"'
    assert len(fields(a="x" * 100_000)) < 1_200


def fill(file: Path) -> None:
    """Write a file full, and a little more."""
    with Logs(logging.INFO, file):
        for _ in range(700):
            logging.getLogger("test").info("x" * 15_000)


def test_records_reach_the_file_which_is_rotated(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    with Logs(logging.INFO, file):
        logging.getLogger("test").info("first %s", fields(cmd="a\nb"))
        logging.getLogger("test").debug("not shown")
    text = file.read_text()
    assert text.endswith('Z INFO test first cmd="a\\nb"\n')
    assert text.count("\n") == 1
    for _ in range(11):
        fill(file)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["server.log", *(f"server.log.{n}" for n in range(1, 10))]
    assert all(path.stat().st_size <= 10_000_000 for path in tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_owner_and_group_can_read_it(tmp_path: Path, umask: int) -> None:
    """Those that an earlier version has left as well."""
    file = tmp_path / "server.log"
    for left in (file, tmp_path / "server.log.1", tmp_path / "server.log.7"):
        left.touch()
        left.chmod(0o666)
    before = os.umask(umask)
    try:
        for _ in range(2):
            fill(file)
    finally:
        os.umask(before)
    files = list(tmp_path.iterdir())
    assert len(files) >= 3
    for path in files:
        assert path.stat().st_mode & 0o7777 & ~0o640 == 0, path
    assert file.stat().st_mode & 0o600 == 0o600


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_it_is_private_from_its_first_byte(tmp_path: Path) -> None:
    """Opened while anybody may read what is made, and looked at by somebody who never sleeps."""
    file = tmp_path / "server.log"
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add(file.stat().st_mode & 0o777)

    looking = threading.Thread(target=look)
    before = os.umask(0)
    looking.start()
    try:
        for _ in range(200):
            with Logs(logging.INFO, file):
                pass
            file.unlink()
    finally:
        done.set()
        looking.join()
        os.umask(before)
    assert seen <= {0o640}


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
def test_what_is_no_regular_file_keeps_its_mode() -> None:
    before = Path("/dev/null").stat().st_mode
    with Logs(logging.INFO, Path("/dev/null")):
        logging.getLogger("test").info("x")
    assert Path("/dev/null").stat().st_mode == before
