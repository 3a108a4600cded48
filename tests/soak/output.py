"""What a server has sent on one connection, read back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import hpack

from tests.attacks.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
)

_HEAD = 9
# A stream that is over may be reset so that its client sends nothing more: no fault of the stream.
_HARMLESS = (0, 8)


def streams_of(sent: bytearray) -> tuple[set[int], set[int]]:
    """Of what a valid client has sent: the streams that it has begun, and those that it has given up."""
    begun, given_up = set(), set()
    for kind, _, stream, _ in _frames(sent[len(PREFACE) :]):
        if kind == HEADERS:
            begun.add(stream)
        elif kind == RST_STREAM:
            given_up.add(stream)
    return begun, given_up


def _frames(data: bytearray) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of each frame that is there as a whole."""
    position = 0
    while position + _HEAD <= len(data):
        kind, flags = data[position + 3], data[position + 4]
        stream = int.from_bytes(data[position + 5 : position + _HEAD], "big")
        end = position + _HEAD + int.from_bytes(data[position : position + 3], "big")
        if end > len(data):
            return
        yield kind, flags, stream, bytes(data[position + _HEAD : end])
        position = end


class OutputError(Exception):
    """It is not what a server may send."""


class Output:
    """Of a server that was not asked for padding, and sends none.

    Args:
        sent: all of it; its last frame may be cut off.
        decode: whether to read headers, which takes longest.

    Attributes:
        data: of each stream.
        statuses: ``grpc-status`` of each stream that has one, where headers were read.
        ended: the streams that were ended, by their last frame or by a reset.
        asked: whether the server has asked its peer whether it is there.
        errors: the codes with which streams and the connection were ended, the harmless left out.

    Raises:
        OutputError: something came on a stream after its end.
    """

    def __init__(self, sent: bytearray, *, decode: bool) -> None:
        self.data: dict[int, bytearray] = defaultdict(bytearray)
        self.statuses: dict[int, int] = {}
        self.ended: set[int] = set()
        self.asked = False
        self.errors: list[int] = []
        decoder = hpack.Decoder()
        block = b""
        for kind, flags, stream, payload in _frames(sent):
            if kind in (DATA, HEADERS) and stream in self.ended:
                raise OutputError(f"stream {stream} goes on after its end")
            if kind == DATA:
                self.data[stream] += payload
            elif kind in (HEADERS, CONTINUATION):
                block += payload
                if flags & END_HEADERS:
                    self._note_status(stream, decoder.decode(block, raw=True) if decode else ())
                    block = b""
            elif kind == RST_STREAM:
                self.ended.add(stream)
                self._note_error(payload[:4])
            elif kind == GOAWAY:
                self._note_error(payload[4:8])
            elif kind == PING and not flags & ACK:
                self.asked = True
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                self.ended.add(stream)

    def _note_status(self, stream: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        for name, value in headers:
            if name == b"grpc-status":
                self.statuses[stream] = int(value)

    def _note_error(self, code: bytes) -> None:
        if (number := int.from_bytes(code, "big")) not in _HARMLESS:
            self.errors.append(number)
