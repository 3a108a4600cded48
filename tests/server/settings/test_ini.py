"""The INI reader: the existing server's format, line numbers, every mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.server.settings.ini import IniEntry, parse_ini


def values(text: str) -> dict[tuple[str, str], str]:
    entries, mistakes = parse_ini(text)
    assert not mistakes
    return {(entry.section, entry.key): entry.value for entry in entries}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("key = value", "value"),
        ("key=value", "value"),
        ("key: value", "value"),
        ("  key   =   a b  ", "a b"),
        ("key = a=b:c", "a=b:c"),
        ("key = value ; a comment", "value"),
        ("key = value\t;comment", "value"),
        ("key = a;b", "a;b"),
        ("key = a # b", "a # b"),
        ('key = "a ; b"  ; a comment', "a ; b"),
        (r'key = "say \"x\" \s"', r'say "x" \s'),
        ('key = "a" b', '"a" b'),
        ("key =", ""),
        ("key = ; only a comment", ""),
        (r"key = rm\s+-rf\s+/", r"rm\s+-rf\s+/"),
        ("key = line\u2028separator", "line\u2028separator"),
    ],
)
def test_a_value(line: str, value: str) -> None:
    assert values(f"[section]\n{line}\n") == {("section", "key"): value}


def test_comments_blank_lines_bom_and_line_ends() -> None:
    text = "\ufeff; one\r\n# two\r\n\r\n[a] ; three\r\nk = v\r\n[b]\r\nk = w"
    assert values(text) == {("a", "k"): "v", ("b", "k"): "w"}


def test_every_mistake_is_found_with_its_line() -> None:
    text = "early = 1\n[a]\nno separator\n = no key\nk = 1\nk = 2\n[open\n[]\nunder = nothing\n[A]\nk = 3"
    _, mistakes = parse_ini(text)
    assert [mistake.line for mistake in mistakes] == [1, 3, 4, 6, 7, 8, 11]
    assert "twice, first in line 5" in mistakes[3].message


def test_a_token_never_shows_in_a_message() -> None:
    _, mistakes = parse_ini("[auth]\nsecret-token-without-an-identity\n")
    assert [mistake.line for mistake in mistakes] == [2]
    assert "secret" not in mistakes[0].message


_names = st.text("abcXYZ_-.0189 ", min_size=1).map(str.strip).filter(bool)
_value_characters = st.characters(exclude_characters='\r\n;"', exclude_categories=("Cs",))
_values = st.text(_value_characters).map(str.strip)


@given(st.dictionaries(st.tuples(_names, _names), _values, max_size=10))
def test_what_is_written_is_read(settings: dict[tuple[str, str], str]) -> None:
    folded = {(section.lower(), key): value for (section, key), value in settings.items()}
    lines = [f"[{section}]\n{key} = {value}\n" for (section, key), value in folded.items()]
    assert values("".join(lines)) == folded


@given(st.text())
def test_any_text_gives_entries_or_mistakes_and_no_exception(text: str) -> None:
    entries, mistakes = parse_ini(text)
    lines = text.count("\n") + 1
    for item in (*entries, *mistakes):
        assert 1 <= item.line <= lines
    assert all(isinstance(entry, IniEntry) and entry.key and entry.section for entry in entries)
