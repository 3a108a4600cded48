"""gRPC's messages in the data of a stream: each behind five bytes, a flag and its length.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

from contextlib import suppress

PREFIX_BYTES = 5
"""What comes before each message."""


# Behind so many bytes that were taken, the rest is moved to the front.
_SPENT = 16 * 1024


class MessageError(Exception):
    """What came is no message that can be taken; the rest of the stream cannot be read."""


class TooLargeError(MessageError):
    """A message is longer than permitted. Known from its first five bytes.

    Attributes:
        size: bytes of the message.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        super().__init__(f"Received message larger than max ({size} vs. {limit})")


class CompressedError(MessageError):
    """A message is compressed: one of a few bytes could become one of many millions."""


def prefix(size: int) -> bytes:
    """What comes before a message of so many bytes."""
    return b"\0" + size.to_bytes(4, "big")


class MessageReader:
    """Cuts the data of one direction of a stream into its messages, one at a time.

    What was not taken stays as it came: of a window full of tiny messages, none is an object of its own.

    Args:
        limit: bytes of the longest message that is taken.
    """

    __slots__ = ("_at", "_data", "_limit", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data: bytes | bytearray = b""
        self._at = 0  # where the next message begins
        self._size = -1  # of the next message; -1 where its first bytes are not here

    @property
    def wanted(self) -> int:
        """Bytes of the next message, where it has begun and is not here as a whole; else 0."""
        return self._size if self._size > self._here >= 0 else 0

    @property
    def within(self) -> bool:
        """Whether something is here of a message that is not here as a whole."""
        return not self.ready and len(self._data) > self._at

    @property
    def ready(self) -> bool:
        """Whether the next message is here as a whole."""
        return 0 <= self._size <= self._here

    @property
    def _here(self) -> int:
        return len(self._data) - self._at - PREFIX_BYTES

    def feed(self, data: bytes) -> None:
        """Take the next data. Raises :class:`MessageError` where the next message cannot be taken."""
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
        """The next message, where it is here as a whole. Raises :class:`MessageError` where it cannot be."""
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
        with suppress(MessageError):  # said when it is to be taken: this one is whole
            self._look()
        return message

    def _look(self) -> None:
        """Read the first bytes of the next message, where they are here."""
        at = self._at
        if len(self._data) - at < PREFIX_BYTES:
            return
        if self._data[at]:
            raise CompressedError("a message is compressed")
        size = int.from_bytes(self._data[at + 1 : at + PREFIX_BYTES], "big")
        if size > self._limit:
            raise TooLargeError(size, self._limit)
        self._size = size
