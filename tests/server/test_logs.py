"""A log line is one line, whatever a caller sends."""

from __future__ import annotations

import logging
import re
from pathlib import Path

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


def test_records_reach_the_file_which_is_rotated(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    with Logs(logging.INFO, file):
        logging.getLogger("test").info("first %s", fields(cmd="a\nb"))
        logging.getLogger("test").debug("not shown")
    text = file.read_text()
    assert text.endswith('Z INFO test first cmd="a\\nb"\n')
    assert text.count("\n") == 1
    with Logs(logging.INFO, file):
        for _ in range(120):
            logging.getLogger("test").info("x" * 1_000_000)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["server.log", *(f"server.log.{n}" for n in range(1, 10))]
    assert all(path.stat().st_size <= 10_000_000 for path in tmp_path.iterdir())
