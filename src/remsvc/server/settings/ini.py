"""Reads an INI file: its entries with their line numbers, and all of its mistakes.

The format is that of the existing server: ``[section]``, ``key = value`` or ``key: value``. A line that
begins with ``;`` or ``#`` is a comment, and so is whatever follows white space and a ``;``. Of a value in
double quotes, the quotes are left out; semicolons and outer spaces in it belong to the value.

Python's ``configparser`` would stop at the first duplicate, and does not tell in which line a value stood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from remsvc.server.settings.misplaced_secrets import in_line

_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*(;.*)?')
# A URI has colons, and may have equals signs; an identity has neither.
_COLONS_IN_KEYS = ("certificates",)
_KEY = re.compile(r"([^=:]*)[=:](.*)", re.DOTALL)
_KEY_WITH_COLONS = re.compile(r"(.*)=(.*)", re.DOTALL)
_INLINE_COMMENT = re.compile(r"(?:^|\s+);.*$")

NAMED_SECTIONS = ("identity", "group")
"""Sections of which there may be many, as ``[identity NAME]``."""


@dataclass(frozen=True, slots=True)
class IniEntry:
    """One ``key = value``.

    Attributes:
        section, key, value: as written, without surrounding white space.
        comment: whether a comment stood behind the value, which was not in quotes.
        line: its line number, from 1.
    """

    section: str
    key: str
    value: str
    comment: bool
    line: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """A line that is neither a section, an entry, a comment nor blank, and what was expected."""

    line: int
    message: str


def section_names(text: str) -> set[str]:
    """The names of all sections in ``text``, in lower case, also of those without entries."""
    headings = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
    names = (_INLINE_COMMENT.sub("", line) for line in headings if line.startswith("["))
    return {name[1:-1].strip().lower() for name in names if name.endswith("]")}


def section_key(section: str) -> str:
    """What two headings of the same section have in common.

    The name in lower case; but the names of identities and groups as written, because they may differ in
    case alone.
    """
    kind, _, name = " ".join(section.split()).partition(" ")
    if kind.lower() in NAMED_SECTIONS and name:
        return f"{kind.lower()} {name}"
    return section.lower()


def parse_ini(text: str) -> tuple[list[IniEntry], list[Mistake]]:
    """The entries of ``text`` in their order, and what is wrong with every other line."""
    entries: list[IniEntry] = []
    mistakes: list[Mistake] = []
    seen: dict[tuple[str, str], int] = {}
    section: str | None = None
    # Not splitlines(): it takes a form feed or U+2028 inside a value for a line's end.
    for number, raw in enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in ";#":
            continue
        if line[0] == "[":
            name = _INLINE_COMMENT.sub("", line)
            section = name[1:-1].strip() if name[-1] == "]" else ""
            if not section:
                shown = "a line that begins with [" if in_line(line) else repr(line)
                mistakes.append(Mistake(number, f"{shown}: expected [section]"))
            continue
        match = (_KEY_WITH_COLONS if (section or "").lower() in _COLONS_IN_KEYS else _KEY).match(line)
        key = match[1].strip() if match else ""
        if match is None or not key:
            mistakes.append(Mistake(number, f"{_shown(section, line)}: expected key = value"))
        elif section is None:
            mistakes.append(Mistake(number, f"{key}: expected a [section] before the first key"))
        elif section:
            entry = IniEntry(section, key, *_value(match[2]), number)
            first = seen.setdefault((section_key(section), key), number)
            if first != number:
                mistakes.append(Mistake(number, f"[{section}] {key}: given twice, first in line {first}"))
            entries.append(entry)
    return entries, mistakes


def _value(text: str) -> tuple[str, bool]:
    if quoted := _QUOTED.fullmatch(text):
        return quoted[1].replace('\\"', '"'), False
    value = _INLINE_COMMENT.sub("", text)
    return value.strip(), value != text


def _shown(section: str | None, line: str) -> str:
    if not section:
        return "a line before the first section"
    # Whose name may be misspelt, as [auht] is.
    return f"a line of [{section}]" if "auth" in section.lower() or in_line(line) else repr(line)
