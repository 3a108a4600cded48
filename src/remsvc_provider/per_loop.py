"""Keeps what all triggers of an event loop share, as long as the loop is open and no longer.

Airflow makes each trigger by itself and hands nothing over that they could share. So each module that has
something to share keeps one :class:`PerLoop`, and finds its value by the loop that runs. A dictionary with
weak keys would not do: locks, tasks and connections refer to their loop, and would keep it alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


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
