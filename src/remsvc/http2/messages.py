"""Finds gRPC's messages in the data of a stream. Five bytes stand before each: a flag, and its length.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

from contextlib import suppress

PREFIX_BYTES = 5
"""The bytes before each message."""

# After so many bytes were taken out, the rest is moved to the front of the buffer.
_SPENT = 16 * 1024


class MessageError(Exception):
    """The next message cannot be taken, and nothing after it can be read."""


class TooLargeError(MessageError):
    """A message is longer than permitted, as its first five bytes say.

    Attributes:
        size: bytes of the message.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        super().__init__(f"Received message larger than max ({size} vs. {limit})")


class CompressedError(MessageError):
    """A message is compressed. It is not taken, because a few bytes could become many millions."""


def prefix(size: int) -> bytes:
    """The five bytes before a message of this size."""
    return b"\0" + size.to_bytes(4, "big")


class MessageReader:
    """Cuts the data of one direction of a stream into messages, one at a time.

    Data that was not taken yet is kept as it came. So a window full of tiny messages does not become as
    many objects, each of which would take more memory than its message.

    Args:
        limit: bytes of the longest message that is taken.
    """

    __slots__ = ("_at", "_data", "_limit", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data: bytes | bytearray = b""
        self._at = 0  # where the next message begins
        self._size = -1  # of the next message; -1: its first five bytes have not all come

    @property
    def wanted(self) -> int:
        """The size of the next message where a part of it is here, else 0."""
        return self._size if self._size > self._here >= 0 else 0

    @property
    def within(self) -> bool:
        """Whether a part of a message is here, and the rest is not."""
        return not self.ready and len(self._data) > self._at

    @property
    def ready(self) -> bool:
        """Whether the whole of the next message is here."""
        return 0 <= self._size <= self._here

    @property
    def _here(self) -> int:
        return len(self._data) - self._at - PREFIX_BYTES

    def feed(self, data: bytes) -> None:
        """Add data that has come. Raises :class:`MessageError` where the next message cannot be taken."""
        if not self._data:
            self._data = data
        elif isinstance(self._data, bytearray):
            self._data += data
        else:
            self._data = bytearray(self._data)
            self._data += data
        if self._size < 0:
            self._look()

    def take(self) -> bytes | None:
        """The next message, or None where it is not all here. Raises :class:`MessageError`."""
        if self._size < 0:
            self._look()
        begin = self._at + PREFIX_BYTES
        end = begin + self._size
        if self._size < 0 or end > len(self._data):
            return None
        message = bytes(self._data[begin:end])
        self._at, self._size = end, -1
        if end == len(self._data):
            self._data, self._at = b"", 0
            return message
        if self._at > _SPENT and isinstance(self._data, bytearray):
            del self._data[: self._at]
            self._at = 0
        with suppress(MessageError):  # raised when that message is to be taken: this one is good
            self._look()
        return message

    def _look(self) -> None:
        """Read the five bytes before the next message, where they are here."""
        at = self._at
        if len(self._data) - at < PREFIX_BYTES:
            return
        if self._data[at]:
            raise CompressedError("a message is compressed")
        size = int.from_bytes(self._data[at + 1 : at + PREFIX_BYTES], "big")
        if size > self._limit:
            raise TooLargeError(size, self._limit)
        self._size = size
