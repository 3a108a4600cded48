"""What comes along with a token when it is copied: everybody who reads one leaves out the same."""

from __future__ import annotations

BEFORE = (
    *("", " ", "\n", "\ufeff", "\ufeff ", "\v\f", "\t\r\n"),
    *("Bearer ", "bearer\t", "BEARER\r\n", "Bearer\v", "Bearer Bearer ", " bearer \ufeffBearer  "),
    *("\ufeffBearer ", "Bearer \ufeff", "Bearer\ufeff", "\v\fBearer \v\f", "\fBearer\fBearer\ufeff\f"),
)
AFTER = ("", "\n", "\r\n", " ", "\ufeff", "\v\f", " \ufeff\t")
COPIES = (*((before, "") for before in BEFORE), *((BEFORE[-1], after) for after in AFTER[1:]))
"""What comes before and after: each of both once. That they add up is for ``test_token_text``."""
NOTHING_BUT = ("Bearer", "bearer \ufeff", "\v\fBearer\f", "Bearer\r\nBEARER\n", "\ufeffBearer \ufeffbearer")
"""The word without any token behind it."""
