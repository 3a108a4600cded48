"""Reads and writes gRPC's headers and trailers: statuses, messages, time limits and metadata."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence

from remsvc.http2.engine import Header
from remsvc.status import Metadata, StatusCode

CONTENT_TYPE = b"application/grpc"
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_NANOSECONDS = {
    b"n": 1,
    b"u": 1000,
    b"m": 1000_000,
    b"S": 1000_000_000,
    b"M": 60_000_000_000,
    b"H": 3_600_000_000_000,
}
_LONGEST_TIMEOUT = 99_999_999
_OK = ((b"grpc-status", b"0"),)


def is_grpc(content_type: bytes) -> bool:
    """Whether a content type is one of gRPC's: ``application/grpc``, ``application/grpc+proto`` …"""
    return content_type == CONTENT_TYPE or content_type.startswith(
        (b"application/grpc+", b"application/grpc;")
    )


def encode_message(text: str) -> bytes:
    """A status's message as it travels: percent-encoded UTF-8."""
    octets = text.encode("utf-8", "replace")
    if all(octet in _PLAIN for octet in octets):
        return octets
    return b"".join(bytes((octet,)) if octet in _PLAIN else b"%%%02X" % octet for octet in octets)


def decode_message(octets: bytes) -> str:
    """A status's message as text, for a person: what is not valid stays as it is, or becomes U+FFFD."""
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), octets).decode("utf-8", "replace")


def encode_timeout(seconds: float) -> bytes:
    """A time limit as a client sends it: rounded up to eight digits, and cut to the longest possible."""
    nanoseconds = round(max(1.0, min(seconds, _LONGEST_TIMEOUT * 3600.0) * 1e9))
    for unit, size in _NANOSECONDS.items():
        count = -(-nanoseconds // size)
        if count <= _LONGEST_TIMEOUT:
            return b"%d%s" % (count, unit)
    return b"%dH" % _LONGEST_TIMEOUT


def decode_timeout(value: bytes) -> float:
    """A received time limit, in seconds. Raises ``ValueError``."""
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise ValueError("grpc-timeout: expected at most eight digits and one of H, M, S, m, u, n")
    return int(match[1]) * _NANOSECONDS[match[2]] / 1e9


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[Header]:
    """Metadata as headers. Values whose keys end with ``-bin`` are encoded as base64."""
    return [(key.encode("ascii"), _encode_value(key, value)) for key, value in metadata]


def _encode_value(key: str, value: str | bytes) -> bytes:
    if isinstance(value, str):
        value = value.encode("ascii")
    elif key.endswith("-bin"):
        return base64.b64encode(value).rstrip(b"=")
    return value.strip()  # HTTP/2 permits no blanks around a value: RFC 9113, section 8.2.1


def decode_binary(value: bytes) -> bytes:
    """The bytes of a value whose key ends with ``-bin``. Raises ``ValueError``."""
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not valid base64: {error}") from error


def status_headers(status: StatusCode, message: str = "", metadata: Metadata = ()) -> Sequence[Header]:
    """The trailers that end a call."""
    if status is StatusCode.OK and not (message or metadata):
        return _OK
    headers = [(b"grpc-status", b"%d" % status)]
    if message:
        headers.append((b"grpc-message", encode_message(message)))
    return headers + encode_metadata(metadata)
