"""A piece of output as it goes on the wire, with its bytes copied once.

Protobuf's own messages would copy them into the chunk, into the response around it, and into the result.
The format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from remsvc.execution.jobs.files import Piece
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

MOST_BESIDE_DATA = 32
"""Bytes that a chunk takes beside those of the output, at most."""
_BYTES = 2  # the wire type of bytes and of messages


def _tag(message: type, name: str) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[name].number  # type: ignore[attr-defined]
    return _varint(number << 3 | _BYTES)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


_STREAMS = {name: _tag(jobs_pb2.WatchJobResponse, name) for name in ("stdout", "stderr")}
_DATA = _tag(jobs_pb2.Chunk, "data")


def chunk_bytes(piece: Piece) -> bytes:
    """The serialized ``WatchJobResponse`` with this piece, which is not empty."""
    chunk = jobs_pb2.Chunk(offset=piece.offset).SerializeToString() + _DATA + _varint(len(piece.data))
    length = _varint(len(chunk) + len(piece.data))
    return b"".join((_STREAMS[piece.stream], length, chunk, piece.data))
