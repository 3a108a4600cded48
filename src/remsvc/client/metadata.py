"""The metadata of a call: the bearer token, read from wherever it was given, and what the caller adds.

People copy tokens by hand and by programs. What surely came along by accident is left out of a token.
Anything else that is not a token is an error, which names the place where it stood but never shows its
value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from remsvc.errors import ConfigurationError
from remsvc.status import Metadata
from remsvc.token_text import token_as_meant

if TYPE_CHECKING:
    from pathlib import Path

    from remsvc.client.options import ConnectionOptions

MetadataItems = Iterable[tuple[str, str | bytes]]
"""What callers may pass as metadata: pairs of a key, in any case, and a value."""

_KEY = re.compile(r"[0-9a-z_.-]+")
# These headers mean something to HTTP/2 or to gRPC itself, so no caller may set them.
_NOT_METADATA = frozenset(
    [
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    ]
)


def call_metadata(options: ConnectionOptions, extra: MetadataItems = ()) -> Metadata:
    """The metadata of a call: ``extra`` with its keys in lower case, and the token.

    The token wins: where there is one, ``authorization`` entries in ``extra`` are dropped.

    Raises:
        ConfigurationError: a key or value cannot travel. No value is shown: it may be a secret.
    """
    entries = [(key.lower(), value) for key, value in extra]
    for key, value in entries:
        _check_entry(key, value)
    if options.token is not None:
        token = bearer_token(options.token, "token")
        entries = [entry for entry in entries if entry[0] != "authorization"]
        entries.append(("authorization", f"Bearer {token}"))
    return tuple(entries)


def _check_entry(key: str, value: str | bytes) -> None:
    if not _KEY.fullmatch(key) or key.startswith("grpc-") or key in _NOT_METADATA:
        raise ConfigurationError([f"metadata key {key!r}: expected letters, digits, '_', '-' and '.'"])
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise ConfigurationError([f"metadata {key!r}: expected bytes, as the key ends with -bin"])
        return
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not (text.isascii() and text.isprintable()):
        raise ConfigurationError([f"metadata {key!r}: expected a text of printable ASCII characters"])


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
