"""What is left of a stranger's text when it is shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remsvc.printable import LONGEST, printable

EVIL = st.text(
    st.sampled_from("a\\\x1b\r\n\x00\x07\x7f\x9b\x85\u2028\u2029\u202e\u2066\ud800\udfff\U000e0041é")
)
LIMIT = st.integers(40, 200)


@given(st.text(st.characters()) | EVIL, LIMIT | st.none())
@example("\ud800" * 300, 40)
def test_it_is_one_line_that_steers_nothing_and_can_be_written(text: str, limit: int | None) -> None:
    shown = printable(text, limit=limit)
    assert len(shown.splitlines()) <= 1
    assert {unicodedata.category(c) for c in shown}.isdisjoint(("Cc", "Cf", "Cs", "Zl", "Zp"))
    shown.encode("utf-8")


@given(st.text(st.characters()) | EVIL, LIMIT)
def test_it_is_never_longer_than_its_limit_and_says_what_it_was(text: str, limit: int) -> None:
    shown, whole = printable(text, limit=limit), printable(text, limit=None)
    assert len(shown) <= limit
    if len(whole) <= limit:
        assert shown == whole
    else:
        assert shown.endswith(f"… ({len(text)} characters)")


@given(st.text(st.characters()) | EVIL, LIMIT)
def test_cleaning_twice_changes_nothing_more(text: str, limit: int) -> None:
    once = printable(text, limit=limit)
    assert printable(once, limit=limit) == once


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=LONGEST))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("one\r\ntwo", r"one\r\ntwo"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_would_act_stands_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_several_lines_stay_so_where_that_is_asked_for() -> None:
    assert printable("a\tb\n\x1b[m\r\n", keep="\n\t") == "a\tb\n\\x1b[m\\r\n"
