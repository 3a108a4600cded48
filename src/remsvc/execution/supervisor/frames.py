"""Messages on the wire between a server and its supervisor: a JSON header with byte strings behind it.

A frame is ``length of the rest (4 bytes) | length of the header (4 bytes) | header | blobs``, big endian. The
header is a JSON object. Its ``blobs`` key lists the lengths of the byte strings that follow it. What headers
say is in :mod:`remsvc.execution.supervisor.protocol`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

FrameHeader = dict[str, Any]

_LENGTHS = struct.Struct("!II")
_to_json = json.JSONEncoder(separators=(",", ":")).encode


def encode_frame(header: FrameHeader, blobs: Sequence[bytes] = ()) -> bytes:
    """Make one frame of ``header`` (anything JSON can carry) and the blobs, which stay as they are."""
    if blobs:
        header = {**header, "blobs": [len(blob) for blob in blobs]}
    text = _to_json(header).encode()
    size = len(text) + sum(map(len, blobs))
    return b"".join((_LENGTHS.pack(_LENGTHS.size - 4 + size, len(text)), text, *blobs))


class FrameReader:
    """Cuts a byte stream, in whatever pieces it arrives, into frames."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0  # in the first piece: what lies before was handed out
        self._size = 0  # behind the position
        self._needed = _LENGTHS.size

    def feed(self, data: bytes) -> Iterator[tuple[FrameHeader, list[bytes]]]:
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
            header: FrameHeader = json.loads(buffer[start : start + header_size])
            start += header_size
            blobs = []
            for length in header.pop("blobs", ()):
                blobs.append(buffer[start : start + length])
                start += length
            yield header, blobs
        if self._position and len(self._pieces) == 1:
            rest = self._pieces[0][self._position :]
            self._pieces, self._position = [rest] if rest else [], 0
