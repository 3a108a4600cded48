"""Reads a bearer token as it was meant, from a text in which somebody wrote it down.

People copy tokens by hand and by programs, and a line end, a byte order mark or the word ``Bearer`` comes
along. Servers and clients leave out the same, so that a text which both are given means the same token to
both.
"""

from __future__ import annotations

import re

_AROUND = "\ufeff \t\r\n\v\f"
"""Byte order mark, blanks and line ends."""
_SCHEMES = re.compile(rf"(?:bearer(?:[{_AROUND}]+|\Z))*", re.IGNORECASE)


def token_as_meant(text: str) -> str:
    """A token without blanks, line ends and byte order marks around it, and without ``Bearer`` before it.

    The word ``Bearer`` may stand there more than once. The result is empty where nothing else is in the
    text.
    """
    text = text.strip(_AROUND)
    schemes = _SCHEMES.match(text)
    return text[schemes.end() :] if schemes else text
