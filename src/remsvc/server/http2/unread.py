"""Bounds the bytes of long messages that are on their way to the server, of all callers together."""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

from remsvc.server.refusal import RefusedError, exhausted

_RETRY_SECONDS = 1.0


class _Receiving(Protocol):
    @property
    def identity(self) -> str:
        """Who sends the message."""

    def fail(self, refused: RefusedError) -> None:
        """End the call with this status."""


class Unread:
    """Counts the bytes of long messages that are here and have not been read as a whole.

    A short message is not counted: HTTP/2's window on each stream bounds it. Where there are more bytes
    than permitted, a call of whoever sends most has to end: so nobody can use up the others' room.

    Args:
        most: bytes.

    Attributes:
        total: bytes that are counted now.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.total = 0
        self._calls: dict[str, dict[_Receiving, int]] = defaultdict(dict)

    def add(self, call: _Receiving, size: int) -> None:
        """Count ``size`` bytes more for a call. It, or another one, may be ended by that."""
        mine = self._calls[call.identity]
        mine[call] = mine.get(call, 0) + size
        self.total += size
        while self.total > self._most:
            calls = max(self._calls.values(), key=lambda calls: sum(calls.values()))
            largest = max(calls, key=calls.__getitem__)
            self.remove(largest)
            largest.fail(
                exhausted(f"more than {self._most} bytes of messages are on their way", _RETRY_SECONDS)
            )

    def remove(self, call: _Receiving, size: int | None = None) -> None:
        """Forget ``size`` bytes of a call, which were read; or all of them: it has ended."""
        mine = self._calls.get(call.identity)
        if mine is None or call not in mine:
            return
        counted = mine[call]
        forgotten = counted if size is None else min(size, counted)
        self.total -= forgotten
        if forgotten < counted:
            mine[call] = counted - forgotten
            return
        del mine[call]
        if not mine:
            del self._calls[call.identity]
