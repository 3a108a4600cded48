"""Timers of the supervisor's loop: what is to be done for a command, and when."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Container, Iterator

from remsvc.execution.supervisor.records import CommandId

_MANY = 1000
_LONGEST_WAIT = 3600.0  # a system call knows a longest one, too

Action = Callable[[CommandId], None]
"""Gets the name of the command, which is to be looked up: a timer must not keep a command that has ended."""


class Timers:
    """Actions by the time at which they fall due.

    Args:
        commands: the commands that are still there; what was to be done for others may be forgotten.
    """

    def __init__(self, commands: Container[CommandId]) -> None:
        self._commands = commands
        self._heap: list[tuple[float, int, CommandId, Action]] = []
        self._order = itertools.count()
        self._many = _MANY

    def after(self, seconds: float, name: CommandId, action: Action) -> None:
        """Let ``action`` fall due for the command ``name``, which may have ended by then."""
        if len(self._heap) > self._many:
            # Most are of commands that ended long before their time limit.
            self._heap = [timer for timer in self._heap if timer[2] in self._commands]
            heapq.heapify(self._heap)
            self._many = _MANY + 2 * len(self._heap)
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), name, action))

    def wait(self) -> float | None:
        """Seconds until the next one falls due; None where there is none."""
        if not self._heap:
            return None
        return min(max(0.0, self._heap[0][0] - time.monotonic()), _LONGEST_WAIT)

    def due(self) -> Iterator[tuple[CommandId, Action]]:
        """Take out, one by one, what has fallen due until now: commands, and what to do for them."""
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            _, _, name, action = heapq.heappop(self._heap)
            yield name, action
