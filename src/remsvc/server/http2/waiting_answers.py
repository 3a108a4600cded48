"""Counts the answers of one connection that its peer has not taken, and lets calls write as there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from remsvc.server.http2.unsent import LEAST_GRANTED, Unsent
from remsvc.server.refusal import RefusedError


class _AnsweredCall(Protocol):
    """The call that an answer is for."""

    def fail(self, refused: RefusedError) -> None:
        """End it with this status."""


class WaitingAnswers:
    """Lets calls write when there is room for what they have to say.

    Args:
        unsent: counts what waits on all connections.
        loop: of the connection.

    Attributes:
        total: bytes that wait: written and not taken, to be written when there is room, or granted.
        written: bytes of them that were written.
        since: the loop's time from which on one of them has waited at least; 0 where none waits.
    """

    def __init__(self, unsent: Unsent, loop: asyncio.AbstractEventLoop) -> None:
        self._unsent = unsent
        self._loop = loop
        self.total = 0
        self.written = 0
        self.since = 0.0
        self._taken = self._waited_then = 0  # since then
        self._waiting: dict[_AnsweredCall, tuple[asyncio.Future[None], Callable[[], bool], int]] = {}
        self._granted: dict[_AnsweredCall, int] = {}
        self._granted_bytes = 0  # to all of them

    @property
    def has_waiters(self) -> bool:
        """Whether a call waits until answers were taken."""
        return bool(self._waiting)

    def has_room(self, own: int, size: int) -> bool:
        """Whether a call with ``own`` bytes that wait may write an answer of ``size`` bytes now."""
        return not self.written or self._unsent.has_room(own, self.written, size)

    def most_granted(self, own: int) -> int:
        """Bytes that a call with ``own`` bytes that wait would be granted now, if its caller takes them."""
        return self._unsent.most_granted(own, self.written + self._granted_bytes)

    def grant(self, call: _AnsweredCall, own: int, sendable: int) -> int:
        """Reserve room for an answer that the call is about to make; bytes that it may have.

        So calls that make theirs at the same time do not count on the same room.

        Args:
            own: bytes of the call's answers that wait.
            sendable: bytes that its caller would take now.
        """
        size = max(min(sendable, self.most_granted(own)), LEAST_GRANTED)
        self._granted[call] = size
        self._granted_bytes += size
        self._change(size)
        return size

    def give_back(self, call: _AnsweredCall) -> int:
        """The call has made its answer, or makes none: end what is reserved for it, and how much that was."""
        size = self._granted.pop(call, 0)
        self._granted_bytes -= size
        self._change(-size)
        return size

    async def wait(self, call: _AnsweredCall, ready: Callable[[], bool], size: int) -> None:
        """Wait until the call may go on, or has ended.

        Args:
            ready: whether it may, asked whenever answers were taken.
            size: bytes of the answer that waits to be written.
        """
        waiter = self._loop.create_future()
        self._waiting[call] = waiter, ready, size
        self._change(size)
        try:
            await waiter
        finally:
            self._waits_no_more(call)

    def shed(self) -> bool:
        """Fail the call that waits with the largest answer; False where none waits, or with an empty one."""
        waiting = self._waiting
        call = max(waiting, key=lambda each: waiting[each][2], default=None)
        if call is None or not waiting[call][2]:
            return False
        waiter = waiting[call][0]
        self._waits_no_more(call)
        call.fail(self._unsent.refusal())
        if not waiter.done():
            waiter.set_result(None)
        return True

    def wake(self) -> None:
        """Let those go on who may now."""
        for waiter, ready, _ in self._waiting.values():
            if not waiter.done() and ready():
                waiter.set_result(None)

    def count(self, written: int) -> None:
        """So many bytes were written and not taken, as it is now."""
        change, self.written = written - self.written, written
        self._taken += max(-change, 0)
        if not written:
            self.since = 0.0
        elif not self.since or self._taken >= self._waited_then:  # all that waited then was taken
            self.since, self._taken, self._waited_then = self._loop.time(), 0, written
        if change:
            self._change(change)

    def _waits_no_more(self, call: _AnsweredCall) -> None:
        if (waiting := self._waiting.pop(call, None)) is not None:
            self._change(-waiting[2])

    def _change(self, size: int) -> None:
        self.total += size
        self._unsent.change(size)
