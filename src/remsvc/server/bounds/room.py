"""Bounds a resource that many identities share: each takes some of it, gives it back, or waits for it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from remsvc.server.refusal import RefusedError
from remsvc.tally import Tally


class Room(ABC):
    """A bounded resource. Those of one identity who wait for some of it are served in the order they came.

    Args:
        taken: how much each identity has.
    """

    def __init__(self, taken: Tally[str]) -> None:
        self._taken = taken
        self._waiting: dict[str, dict[asyncio.Future[None], int]] = {}  # first those who came first

    @abstractmethod
    def has_room(self, whose: str, amount: int = 1) -> bool:
        """Whether an identity may take so much more now."""

    @abstractmethod
    def refusal(self, whose: str) -> RefusedError:
        """What an identity is told that may not."""

    def take(self, whose: str, amount: int = 1) -> None:
        """Take so much at once. Raises :class:`RefusedError` where there is no room for it."""
        if not self.has_room(whose, amount):
            raise self.refusal(whose)
        if amount:
            self._taken.add(whose, amount)

    def give_back(self, whose: str, amount: int = 1) -> None:
        """So much that was taken is free again."""
        self._taken.remove(whose, amount)

    def must_wait(self, whose: str, amount: int = 1) -> bool:
        """Whether there is no room now, or somebody of this identity waits already."""
        return whose in self._waiting or not self.has_room(whose, amount)

    async def wait(self, whose: str, amount: int = 1) -> None:
        """Take so much once there is room, after those of this identity who waited before.

        A caller that is cancelled while it waits has taken nothing.
        """
        if not self.must_wait(whose, amount):
            self.take(whose, amount)
            return
        given = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(whose, {})[given] = amount
        try:
            await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.give_back(whose, amount)
            elif (queue := self._waiting.get(whose)) is not None:
                queue.pop(given, None)
                self.serve(whose)  # the next one may ask for less
            raise

    def waiting(self, whose: str) -> int:
        """How many of an identity wait."""
        return len(self._waiting.get(whose, ()))

    def serve(self, whose: str) -> None:
        """Give those of an identity who wait what they wait for, as far as there is room."""
        queue = self._waiting.get(whose, {})
        while queue:
            given, amount = next(iter(queue.items()))
            if not given.done() and not self.has_room(whose, amount):
                return
            del queue[given]
            if not given.done():
                self.take(whose, amount)
                given.set_result(None)
        self._waiting.pop(whose, None)

    def serve_all(self) -> None:
        """The same for all identities."""
        for whose in list(self._waiting):
            self.serve(whose)
