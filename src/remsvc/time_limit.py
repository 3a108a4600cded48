"""A limit of time for what a block awaits: ``asyncio.timeout`` on every Python, at the price of one timer."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any

if sys.version_info >= (3, 11):

    def _cancelling(task: asyncio.Task[Any]) -> int:
        return task.cancelling()

    def _uncancel(task: asyncio.Task[Any]) -> int:
        return task.uncancel()

else:
    import weakref

    class _CountingCancel:
        """Stands in for a task's ``cancel``, and counts how often the task was told to end.

        Python 3.11 counts in the task itself. Before that, one who cancels a task in the moment in which
        somebody else does leaves no trace. Who took hold of the method before the first limit is not counted.
        """

        def __init__(self, task: asyncio.Task[Any]) -> None:
            self._task = weakref.ref(task)
            self.count = 0

        def __call__(self, msg: Any = None) -> bool:
            task = self._task()
            if task is None or task.done():
                return False
            self.count += 1
            return type(task).cancel(task, msg)

    def _counter(task: asyncio.Task[Any]) -> _CountingCancel:
        cancel = task.cancel
        if not isinstance(cancel, _CountingCancel):
            cancel = _CountingCancel(task)
            task.cancel = cancel  # type: ignore[method-assign]
        return cancel

    def _cancelling(task: asyncio.Task[Any]) -> int:
        return _counter(task).count

    def _uncancel(task: asyncio.Task[Any]) -> int:
        counter = _counter(task)
        counter.count -= 1
        return counter.count


class TimeLimit:
    """Cancels what the block awaits after some seconds, and raises ``TimeoutError`` from it.

    Whoever cancels the task is heard, in whatever moment that is: together with the result of what is
    awaited, or with the end of the time. ``asyncio.wait_for`` hears neither before Python 3.12, so a command
    would go on for a caller who has gone; and it starts a task for each wait. ``asyncio.timeout``
    does the same as this and is not in Python 3.10.

    Limits may be nested. Each is used once, within a task, and raises the built-in ``TimeoutError``
    (which is not ``asyncio.TimeoutError`` in Python 3.10).

    Args:
        seconds: the limit; 0 or less for what needs no wait, None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._expired = False
        self._over = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelled_before = _cancelling(task)
        self.restart(self._seconds)

    @property
    def left(self) -> float | None:
        """Seconds; None where there is no limit now."""
        return None if self._timer is None else self._timer.when() - asyncio.get_running_loop().time()

    def restart(self, seconds: float | None) -> None:
        """Count anew, from now on; None: no limit from here on. Does nothing once the time is up or the block
        is left."""
        if self._expired or self._over:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._expired:
            return
        cancelled_by_others = _uncancel(self._task) > self._cancelled_before
        if kind is not None and issubclass(kind, asyncio.CancelledError) and not cancelled_by_others:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
