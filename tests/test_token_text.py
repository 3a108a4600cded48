"""What a token is, of a text in which it was written down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remsvc.token_text import token_as_meant

from .copied_tokens import AFTER, BEFORE

PIECES = st.lists(st.sampled_from([*BEFORE, *AFTER, "bearer", "BEARER", "x", "é", "\0", "\xa0"])).map("".join)


@given(st.lists(st.sampled_from(BEFORE)).map("".join), st.lists(st.sampled_from(AFTER)).map("".join))
def test_accidents_add_up(before: str, after: str) -> None:
    for token in ("Bearerish token", "x", "\xa0", "a bearer", "sha256:bearer"):
        assert token_as_meant(before + token + after) == token


@given(PIECES)
def test_what_is_left_has_no_accidents(text: str) -> None:
    token = token_as_meant(text)
    assert token_as_meant(token) == token
    assert token in text
    for before in BEFORE:
        assert token_as_meant(before + token) == token


def test_many_words_are_read_in_one_go() -> None:
    """A caller chooses how many, before anybody knows who it is."""
    assert token_as_meant("Bearer " * 1_000_000 + "x") == "x"
