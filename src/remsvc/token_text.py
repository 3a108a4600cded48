"""A bearer token as it was written down somewhere, read as it was meant.

Tokens are copied by hand and by programs: a line end, a byte order mark or the word ``Bearer`` comes along.
Servers and clients leave out the same, so that a token which one of them takes is the other's token as well.
"""

from __future__ import annotations

import re

_AROUND = "\ufeff \t\r\n\v\f"
"""Byte order mark, blanks and line ends."""
_SCHEMES = re.compile(rf"(?:bearer(?:[{_AROUND}]+|\Z))*", re.IGNORECASE)


def token_as_meant(text: str) -> str:
    """A token without what surely came along by accident: blanks, line ends and byte order marks around it,
    and the word ``Bearer`` before it, once or more often. Empty where there is no more.
    """
    text = text.strip(_AROUND)
    schemes = _SCHEMES.match(text)
    return text[schemes.end() :] if schemes else text
