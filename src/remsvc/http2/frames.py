"""Measures a peer's frames before the engine takes them in: how many there are, and whether one is
unfinished.

The engine takes in any number of frames at once, and says nothing about a frame that has only begun. A peer
could make others wait by sending very many frames, or hold a connection by never finishing one. So the head
of each frame, its first 9 bytes, is read here: RFC 9113, section 4.1.
"""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HEAD = 9
_DATA, _HEADERS, _PUSH_PROMISE, _CONTINUATION = 0x0, 0x1, 0x5, 0x9
_END_HEADERS = 0x4
_BLOCK_BEGINS = (_HEADERS, _PUSH_PROMISE)
HEADERS_WORK = 10
"""The work that a frame with headers counts for, and one more for each 32 bytes in it. Every other frame
counts 1."""
TURN_WORK = 200
"""About so much work is taken in from one connection before something else gets its turn."""


class FrameMeter:
    """Follows the frames of one direction of a connection.

    Args:
        preface: whether the connection's preface comes before the first frame, as from a client.

    Attributes:
        frames: how many have begun.
        in_header_block: whether a list of headers has begun whose end has not come.
    """

    __slots__ = ("_head", "_is_data", "_left", "_stream", "frames", "in_header_block")

    def __init__(self, *, preface: bool) -> None:
        self._left = len(PREFACE) if preface else 0
        self._head = b""
        self._is_data = False
        self._stream = 0
        self.frames = 0
        self.in_header_block = False

    @property
    def within_data_of(self) -> int:
        """The stream of a data frame of which only a part has come; 0 where there is none."""
        return self._stream if self._left and self._is_data else 0

    @property
    def waits(self) -> bool:
        """Whether something has begun that must end soon: a list of headers, or a frame that is not one
        with data, for which the limits of its call hold."""
        return self.in_header_block or bool(self._head) or (self._left > 0 and not self._is_data)

    def measure(self, data: bytes | memoryview, work: int) -> int:
        """Follow what has been received, up to about ``work``.

        Returns:
            How many bytes were followed: they are to be taken in now.
        """
        position, end = 0, len(data)
        left, frames, head_at = self._left, 0, -1
        while position < end:
            if left:
                step = left if left < end - position else end - position
                left -= step
                position += step
                continue
            if work <= 0:
                break
            if self._head or end - position < _HEAD:
                taken = min(_HEAD - len(self._head), end - position)
                self._head += bytes(data[position : position + taken])
                position += taken
                if len(self._head) < _HEAD:
                    break
                head, self._head = self._head, b""
                left, kind, flags = head[0] << 16 | head[1] << 8 | head[2], head[3], head[4]
                self._stream, head_at = _stream_of(head, 0), -1
            else:
                left = data[position] << 16 | data[position + 1] << 8 | data[position + 2]
                kind, flags = data[position + 3], data[position + 4]
                head_at = position
                position += _HEAD
            frames += 1
            self._is_data = kind == _DATA
            if kind in _BLOCK_BEGINS:
                self.in_header_block = not flags & _END_HEADERS
                work -= HEADERS_WORK + (left >> 5)
            else:
                if kind == _CONTINUATION and flags & _END_HEADERS:
                    self.in_header_block = False
                work -= 1
        self._left = left
        if left and head_at >= 0:
            self._stream = _stream_of(data, head_at)
        self.frames += frames
        return position


def _stream_of(data: bytes | memoryview, head: int) -> int:
    return int.from_bytes(data[head + 5 : head + _HEAD], "big") & 0x7FFFFFFF
