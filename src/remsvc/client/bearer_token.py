"""A bearer token that a program, a variable or a file gives a client.

What surely came along with it by accident is left out; anything else that is no token is an error, which
names the place and not the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remsvc.errors import ConfigurationError
from remsvc.token_text import token_as_meant

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_FILE = 64 * 1024
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def bearer_token(text: object, source: str) -> str:
    """The token in ``text``, without blanks, line ends, byte order marks and ``Bearer`` around it.

    Args:
        text: what was given; not a string where a program passes something else.
        source: where, as an error names it: a variable, a file, an option.

    Raises:
        ConfigurationError: it is no token.
    """
    if not isinstance(text, str):
        raise ConfigurationError([f"{source}: expected text, not {type(text).__name__}"])
    token = token_as_meant(text)
    if not token:
        without = "the token after 'Bearer' is missing" if "bearer" in text.lower() else "is empty"
        raise ConfigurationError([f"{source}: {without}"])
    if token.isascii() and token.isprintable():
        return token
    if (lines := len(token.splitlines())) > 1:
        raise ConfigurationError([f"{source}: expected one token, on one line, not {lines} lines"])
    number = next(number for number, character in enumerate(token, 1) if not " " <= character <= "~")
    raise ConfigurationError(
        [f"{source}: character {number} of the token is not printable ASCII (value not shown)"]
    )


def read_bearer_token(file: Path, source: str) -> str:
    """The token in a file, as :func:`bearer_token`.

    Raises:
        ConfigurationError: it cannot be read, or is no token; names ``source``, which should name the file.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError([f"{source}: cannot be read: {reason}"]) from error
    if len(data) > _LONGEST_FILE:
        raise ConfigurationError([f"{source}: expected a token, and it has more than {_LONGEST_FILE} bytes"])
    # Windows writes text files as UTF-16 where nobody asks for another encoding.
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise ConfigurationError([f"{source}: expected text"]) from None
    return bearer_token(text, source)
