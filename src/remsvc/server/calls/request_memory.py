"""Bounds the memory that requests take, of all callers together and of each identity."""

from __future__ import annotations

from collections import deque

from remsvc.server.bounds.room import Room
from remsvc.server.bounds.shares import Shares
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.time_limit import TimeLimit

_RETRY_SECONDS = 1.0
SMALL_REQUEST = 4 * 1024
"""A request of no more bytes is not counted: how many of them there may be is bounded by how many calls."""


class RequestMemory(Room):
    """Bytes of requests, of which no identity can have all.

    Args:
        most: of all identities together.
        what: whose bytes they are, as it is said where there is no room.
    """

    def __init__(self, most: int, what: str = "the requests being answered") -> None:
        self._shares = Shares(most)
        self._what = what
        super().__init__(self._shares)

    def has_room(self, whose: str, amount: int = 1) -> bool:
        return self._shares.has_room(whose, amount)

    def refusal(self, whose: str) -> RefusedError:
        total, own = self._shares.total, self._shares.of(whose)
        reason = f"{self._what} have {total} bytes already, {own} of them those of {whose}"
        return exhausted(reason, _RETRY_SECONDS)

    def give_back(self, whose: str, amount: int = 1) -> None:
        """They are free again: whoever waits for them takes them."""
        super().give_back(whose, amount)
        self.serve_all()


class CallRequests:
    """The requests of one call that are being answered, in the order in which they came.

    The first one is refused where there is no room for it. Any other waits: something of the call has run,
    so that its caller could not simply come back. What waits is not parsed, and not read before it must be.

    Args:
        memory: in which they are counted.
        waiting: in which those are counted that were read, and wait for room.
        whose: the call's identity.
        patience: seconds that one waits.
    """

    def __init__(self, memory: RequestMemory, waiting: RequestMemory, whose: str, patience: float) -> None:
        self._memory = memory
        self._waiting = waiting
        self._whose = whose
        self._patience = patience
        self._sizes: deque[int] = deque()
        self._last: int | None = None

    async def before_read(self) -> None:
        """Wait while others of the identity, with large requests as well, wait for room.

        Raises:
            RefusedError: it took too long.
        """
        if self._last:
            await self._wait(0)

    def add(self, size: int) -> None:
        """One more, of so many bytes. Raises :class:`RefusedError` where there is no room for it."""
        size = _counted(size)
        if size:
            self._memory.take(self._whose, size)
        self._note(size)

    async def add_after(self, size: int) -> None:
        """As :meth:`add`, for a request of a stream: one that is not the first waits for room.

        Raises:
            RefusedError: there is no room for it where it comes first; or too many wait, or it for too long.
        """
        counted = _counted(size)
        if self._last is None or not counted or not self._memory.must_wait(self._whose, counted):
            self.add(size)
            return
        self._waiting.take(self._whose, counted)
        try:
            await self._wait(counted)
        finally:
            self._waiting.give_back(self._whose, counted)
        self._note(counted)

    def answered(self) -> None:
        """The oldest of them was answered."""
        if size := self._sizes.popleft():
            self._memory.give_back(self._whose, size)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        while self._sizes:
            self.answered()

    def _note(self, size: int) -> None:
        self._last = size
        self._sizes.append(size)

    async def _wait(self, size: int) -> None:
        try:
            with TimeLimit(self._patience):
                await self._memory.wait(self._whose, size)
        except TimeoutError:
            reason = f"the requests of {self._whose} left no room for another one for {self._patience:g} s"
            raise exhausted(reason, _RETRY_SECONDS) from None


def _counted(size: int) -> int:
    return size if size > SMALL_REQUEST else 0
