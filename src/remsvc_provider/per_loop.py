"""Keeps what all triggers of an event loop share, as long as the loop is open and no longer.

Airflow makes each trigger by itself and hands nothing over that they could share. So each module that has
something to share keeps one :class:`PerLoop`, and finds its value by the loop that runs. A dictionary with
weak keys would not do: locks, tasks and connections refer to their loop, and would keep it alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

AT_ONCE = 16
"""So many triggers may wait for the same kind of answer at once: what becomes ready at the same time runs in
one go, before the loop looks at anything else, and a thousand that start together would hold it up."""


class PerLoop(Generic[T]):
    """One value for each open event loop.

    Args:
        make: a loop's value, called while it runs.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, T] = {}
        self._lock = threading.Lock()  # a worker's threads may have loops of their own

    def get(self) -> T:
        """The running loop's value.

        Raises:
            RuntimeError: no event loop is running.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._values:
                for other in [other for other in self._values if other.is_closed()]:
                    del self._values[other]
                self._values[loop] = self._make()
            return self._values[loop]


def _no_turns() -> dict[str, asyncio.Semaphore]:
    return defaultdict(lambda: asyncio.Semaphore(AT_ONCE))


_turns = PerLoop(_no_turns)


def turn(kind: str) -> asyncio.Semaphore:
    """Limits how many wait at once for the same; for ``async with``, in the running loop.

    Args:
        kind: what is waited for, such as a server's name. Each kind has turns of its own: a server that
            does not answer holds up nobody who waits for another one.
    """
    return _turns.get()[kind]
