"""Recognizes what may be a token that somebody wrote in the wrong place, so that no message shows it.

Otherwise a token under a misspelt key would be shown in the log, and in every copy of the log.
"""

from __future__ import annotations

import re

_TELLING_KEY = re.compile(r"token|secret|passw|auth|bearer|credential|private|api.?key", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9_+=~.\-]+")
_LONG_WORD, _VERY_LONG_WORD = 9, 16
NOT_SHOWN = "(value not shown)"


def in_unknown_key(key: str, value: str) -> bool:
    """Whether the value of a key that does not exist may be a token."""
    return bool(_TELLING_KEY.search(key)) or _has_word(value, _LONG_WORD)


def in_known_key(value: str) -> bool:
    """Whether a value that should be a number, or one of a few words, may be a token."""
    return _has_word(value, _VERY_LONG_WORD)


def in_line(line: str) -> bool:
    """Whether a line that is not ``key = value`` may hold a token."""
    return _has_word(line, _LONG_WORD)


def in_path(value: str) -> bool:
    """Whether what should be a file's path may be a token: then it is one long word."""
    return not re.search(r"[/\\.]", value) and _has_word(value, _VERY_LONG_WORD)


def _has_word(text: str, length: int) -> bool:
    return "bearer " in text.lower() or any(len(word) >= length for word in _WORD.findall(text))
