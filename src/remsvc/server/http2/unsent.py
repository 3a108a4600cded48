"""How much of the answers may wait to be taken, for all callers together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

_MOST_OF_A_CALL = 512 * 1024
_PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.2


class _Sending(Protocol):
    @property
    def unsent_since(self) -> float:
        """The loop's time since when answers wait and the peer takes none; 0 where none wait."""

    def cut(self, reason: str) -> None:
        """End the connection at once."""


class Unsent:
    """Counts the bytes of answers that were written, and that their callers have not taken yet.

    Args:
        connections: all of them.
        most_each: bytes that may wait on one connection.
        most: bytes that may wait on all of them.

    Attributes:
        total: bytes that wait now.
    """

    def __init__(self, connections: Collection[_Sending], most_each: int, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections = connections
        self._most_each = most_each
        self._most = most
        self.total = 0
        self._looked = 0.0

    def has_room(self, own: int, waiting: int) -> bool:
        """Whether a call may write one more answer.

        The first one always may: whoever takes his answers is not held up by those who do not.

        Args:
            own: bytes of the call's own answers that wait.
            waiting: bytes that wait on its connection.
        """
        return not own or (own < _MOST_OF_A_CALL and waiting < self._most_each and self.total < self._most)

    def change(self, size: int) -> None:
        """Count ``size`` bytes more, or less."""
        self.total += size
        if self.total > self._most and size > 0:
            self._relieve()

    def _relieve(self) -> None:
        """Close the connection on which something has waited for longest, if that is long."""
        now = self._loop.time()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        waiting = [connection for connection in self._connections if connection.unsent_since]
        if waiting:
            slowest = min(waiting, key=lambda connection: connection.unsent_since)
            if now - slowest.unsent_since > _PATIENCE_SECONDS:
                slowest.cut("took none of its answers while too many waited")
