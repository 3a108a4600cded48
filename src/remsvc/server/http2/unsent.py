"""Bounds the bytes of answers that wait to be taken, of all callers together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

from remsvc.server.refusal import RefusedError, exhausted

_MOST_OF_A_CALL = 512 * 1024
AT_LEAST = 16 * 1024
"""Bytes of a call's answers that may wait whatever others wait."""
_SMALL = 64 * 1024  # and of a connection's
_MOST_GRANTED = 256 * 1024
LEAST_GRANTED = 1024
"""Bytes that a call may make at least: shorter answers are not worth their cost."""
_PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_RETRY_SECONDS = 1.0


class _Answers(Protocol):
    """See :class:`~remsvc.server.http2.waiting_answers.WaitingAnswers`."""

    @property
    def total(self) -> int: ...
    @property
    def since(self) -> float: ...
    def shed(self) -> bool: ...


class _Sending(Protocol):
    @property
    def answers(self) -> _Answers:
        """Its answers that wait."""

    def cut(self, reason: str) -> None:
        """End the connection at once."""


class Unsent:
    """Counts the bytes of answers that their callers have not taken yet: written, waiting for room, granted.

    Where there are more than permitted, whoever has most of them loses an answer that waits. So nobody can
    use up the others' room.

    Args:
        connections: all of them.
        most_each: bytes that may wait on one connection; calls with more wait until some were taken.
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

    def has_room(self, own: int, written: int, size: int) -> bool:
        """Whether a call may write one more answer.

        Whoever takes his answers is not held up by those who do not.

        Args:
            own: bytes of the call's own answers that were not taken.
            written: bytes that were not taken on its connection.
            size: the answer's.
        """
        if not written or written + size <= _SMALL or own + size <= AT_LEAST:
            return True
        return own < _MOST_OF_A_CALL and written < self._most_each and self.total < self._most

    def most_granted(self, own: int, waiting: int) -> int:
        """How many bytes a call may be granted for an answer that it has not made yet.

        Grants take at most half of what may wait on a connection; the other half is for answers that are
        ready.

        Args:
            own: bytes of the call's own answers that were not taken.
            waiting: bytes that were not taken on its connection, and those that were granted there.
        """
        room = min(self._most_each // 2 - waiting, self._most - self.total)
        return max(min(_MOST_GRANTED, room), AT_LEAST - own, LEAST_GRANTED)

    def refusal(self) -> RefusedError:
        """How a call ends that had to be given up."""
        return exhausted(f"more than {self._most} bytes of answers wait to be taken", _RETRY_SECONDS)

    def change(self, size: int) -> None:
        """Count ``size`` bytes more, or less."""
        self.total += size
        if size > 0 and self.total > self._most:
            self._relieve()

    def _relieve(self) -> None:
        while self.total > self._most:
            largest = max(self._connections, key=_unsent, default=None)
            if largest is None or not largest.answers.shed():
                break
        else:
            return
        # All of it was written: only a connection that ends gives it back.
        now = self._loop.time()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        waiting = [connection for connection in self._connections if connection.answers.since]
        if self.total > 2 * self._most and waiting:
            max(waiting, key=_unsent).cut("had most of far too many answers that were not taken")
        elif waiting:
            slowest = min(waiting, key=lambda connection: connection.answers.since)
            if now - slowest.answers.since > _PATIENCE_SECONDS:
                slowest.cut("took none of its answers while too many waited")


def _unsent(connection: _Sending) -> int:
    return connection.answers.total
