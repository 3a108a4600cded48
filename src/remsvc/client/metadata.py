"""The metadata of a call: the token, and what the caller adds."""

from __future__ import annotations

import re
from collections.abc import Iterable

from remsvc.client.bearer_token import bearer_token
from remsvc.client.options import ConnectionOptions
from remsvc.client.transport import Metadata
from remsvc.errors import ConfigurationError

MetadataItems = Iterable[tuple[str, str | bytes]]

_KEY = re.compile(r"[0-9a-z_.-]+")
# Headers that mean something to HTTP/2 or to gRPC itself.
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
