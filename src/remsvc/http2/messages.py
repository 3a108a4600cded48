"""gRPC's messages in the data of a stream: each behind five bytes, a flag and its length.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

from collections import deque

PREFIX_BYTES = 5
"""What comes before each message."""


class MessageError(Exception):
    """What came is no message that can be taken; the rest of the stream cannot be read."""


class TooLargeError(MessageError):
    """A message is longer than permitted. Known from its first five bytes."""


class CompressedError(MessageError):
    """A message is compressed: one of a few bytes could become one of many millions."""


def prefix(size: int) -> bytes:
    """What comes before a message of so many bytes."""
    return b"\0" + size.to_bytes(4, "big")


class MessageReader:
    """Cuts the data of one direction of a stream into its messages.

    Args:
        limit: bytes of the longest message that is taken.

    Attributes:
        messages: those that are here and were not taken yet.
        wanted: bytes of the message that has begun and is not here as a whole; 0 where there is none.
    """

    __slots__ = ("_have", "_limit", "_parts", "messages", "wanted")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._have = 0
        self.messages: deque[bytes] = deque()
        self.wanted = 0

    @property
    def within(self) -> bool:
        """Whether a message has begun and is not here as a whole."""
        return self._have > 0

    def feed(self, data: bytes) -> None:
        """Take the next data. Raises :class:`MessageError`; then nothing more may be fed."""
        self._parts.append(data)
        self._have += len(data)
        if self._have < self.wanted + PREFIX_BYTES:
            return  # a long message that comes in small pieces is put together once
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        position, end = 0, len(whole)
        self.wanted = 0
        while end - position >= PREFIX_BYTES:
            size = int.from_bytes(whole[position + 1 : position + PREFIX_BYTES], "big")
            if whole[position]:
                raise CompressedError("a message is compressed")
            if size > self._limit:
                raise TooLargeError(f"Received message larger than max ({size} vs. {self._limit})")
            if end - position - PREFIX_BYTES < size:
                self.wanted = size
                break
            position += PREFIX_BYTES
            self.messages.append(whole[position : position + size])
            position += size
        self._parts = [whole[position:]] if position < end else []
        self._have = end - position
