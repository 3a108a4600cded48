"""Finds allow patterns that permit more than they seem to, by looking at the pattern alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from remsvc.server.policy.patterns import PatternError, compile_pattern

_FLAGS = re.compile(r"\(\?[a-zA-Z-]+\)")
_ATOM = re.compile(
    r"\\Q.*?(?:\\E|$)|\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\.|\[\^?\]?(?:\[:[^\]]*:\]|\\.|[^\]\\])*\]|.", re.DOTALL
)
_PIECE = re.compile(f"{_FLAGS.pattern}|{_ATOM.pattern}", re.DOTALL)
_BEGINNINGS, _ENDS = ("^", r"\A"), ("$", r"\z")
_OPERATORS = frozenset(";&|`<>\n")
"""What begins another command, or names a file to write to, in the shell's grammar."""


def is_anchored(pattern: str) -> bool:
    """Whether the pattern can match only a whole text. Where that is not clear: no."""
    atoms = [atom for atom in _atoms(pattern) if not _FLAGS.fullmatch(atom)]
    if any("m" in atom.partition("-")[0] for atom in _atoms(pattern) if _FLAGS.fullmatch(atom)):
        return False  # then ^ and $ match at each line
    branches = list(_branches(atoms))
    if len(branches) > 1:
        return all(map(_is_anchored_branch, branches))
    return _is_anchored_branch(branches[0])


def lets_operators_pass(pattern: str) -> bool:
    """Whether some part of the pattern, such as ``.*``, matches an operator of the shell.

    An operator that the pattern spells out does not count: whoever wrote it means it.
    """
    for atom in _atoms(pattern):
        is_open = atom == "." or atom.startswith("[") or (atom.startswith("\\") and atom[1:2].isalpha())
        if is_open and atom[1:2] not in ("Q", "x", "b", "A", "z") and _matches_operator(atom):
            return True
    return False


def _matches_operator(atom: str) -> bool:
    try:
        single = compile_pattern(f"^(?:{atom})$")
    except PatternError:
        return False
    matched = {character for character in "".join(_OPERATORS) + "$(" if single.search(character)}
    return bool(matched & _OPERATORS) or matched == {"$", "("}


def _is_anchored_branch(atoms: list[str]) -> bool:
    if atoms and atoms[0] in _BEGINNINGS and atoms[-1] in _ENDS:
        return True
    # The whole branch is one group, as in (?:^a$|^b$): the same goes for what is in it.
    if len(atoms) > 2 and atoms[0] == "(" and atoms[-1] == ")" and _closes(atoms) == len(atoms) - 1:
        inner = atoms[1:-1]
        if inner[0] == "?":
            if ":" not in inner:
                return False
            inner = inner[inner.index(":") + 1 :]
        return all(map(_is_anchored_branch, _branches(inner)))
    return False


def _closes(atoms: list[str]) -> int:
    depth = 0
    for place, atom in enumerate(atoms):
        depth += (atom == "(") - (atom == ")")
        if depth == 0:
            return place
    return -1


def _branches(atoms: list[str]) -> Iterator[list[str]]:
    depth = 0
    branch: list[str] = []
    for atom in atoms:
        depth += (atom == "(") - (atom == ")")
        if atom == "|" and depth == 0:
            yield branch
            branch = []
        else:
            branch.append(atom)
    yield branch


def _atoms(pattern: str) -> list[str]:
    return _PIECE.findall(pattern)
