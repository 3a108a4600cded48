"""An event loop whose clock is moved by hand, so that minutes pass in no time and sessions repeat exactly."""

from __future__ import annotations

import asyncio
import selectors
import types
from collections.abc import Generator

_TICK = 1e-5


class _NothingHappens(selectors.SelectSelector):
    """There is nothing outside the loop that it could wait for."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own.

    Whoever moves the clock must have something to do in every turn of the loop: one that waits for its
    clock alone would wait for ever.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        super().__init__(_NothingHappens())

    def time(self) -> float:
        self._now += _TICK  # what works for long sees time pass, and so its time slice end
        return self._now

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self._now += seconds


@types.coroutine
def turns(count: int) -> Generator[None, None, None]:
    """Let the loop turn so many times."""
    for _ in range(count):
        yield
