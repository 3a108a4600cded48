"""Messages between the server and its supervisor: a JSON header with byte strings behind it.

A frame is ``length of the rest (4 bytes) | length of the header (4 bytes) | header | blobs``, big
endian; the header's ``blobs`` key lists the blobs' lengths.

Server and supervisor may be of different versions. What either does not know, message or key, it
ignores; a key that was added later may be absent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

VERSION = 1
"""Of the messages. A server refuses a supervisor whose version is above its own.

It rises when an older server could not work with the messages any more.
"""

MARK = "REMSVC_COMMAND_ID"
"""The environment variable that tells a command's processes from another's."""

DRAIN_GRACE = 0.1
"""Seconds that an ended command's output is still read while another process holds it open."""

OUTPUT_WAIT = 5.0
"""Seconds that it is read at most while others still pass it on, as in ``exec > >(tee log)``."""

_LENGTHS = struct.Struct("!II")
_encode = json.JSONEncoder(separators=(",", ":")).encode

Header = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Credentials:
    """The POSIX user a process runs as.

    Attributes:
        uid: user id.
        gid: primary group id.
        groups: all supplementary group ids, the primary one included.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]


def encode_frame(header: Header, blobs: Sequence[bytes] = ()) -> bytes:
    """One frame: ``header`` (anything JSON can carry) and the blobs, unchanged."""
    if blobs:
        header = {**header, "blobs": [len(blob) for blob in blobs]}
    text = _encode(header).encode()
    size = len(text) + sum(map(len, blobs))
    return b"".join((_LENGTHS.pack(_LENGTHS.size - 4 + size, len(text)), text, *blobs))


class FrameReader:
    """Cuts a byte stream, in whatever pieces it arrives, into frames."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0  # in the first piece: what lies before was handed out
        self._size = 0  # behind the position
        self._needed = _LENGTHS.size

    def feed(self, data: bytes) -> Iterator[tuple[Header, list[bytes]]]:
        """Take the next piece and yield each frame that is complete with it."""
        self._pieces.append(data)
        self._size += len(data)
        while self._size >= self._needed:
            if len(self._pieces) > 1:  # a long frame comes in many pieces, put together once
                self._pieces = [b"".join(self._pieces)]
            buffer, start = self._pieces[0], self._position
            size, header_size = _LENGTHS.unpack_from(buffer, start)
            if self._size < 4 + size:
                self._needed = 4 + size
                break
            self._position += 4 + size
            self._size -= 4 + size
            self._needed = _LENGTHS.size
            start += _LENGTHS.size
            header: Header = json.loads(buffer[start : start + header_size])
            start += header_size
            blobs = []
            for length in header.pop("blobs", ()):
                blobs.append(buffer[start : start + length])
                start += length
            yield header, blobs
        if self._position and len(self._pieces) == 1:
            rest = self._pieces[0][self._position :]
            self._pieces, self._position = [rest] if rest else [], 0
