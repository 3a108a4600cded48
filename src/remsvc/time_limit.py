"""A time limit for what a block awaits: as ``asyncio.timeout``, but on every Python, and for one timer."""

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
        """Takes the place of a task's ``cancel`` method, and counts how often it is called.

        From Python 3.11 on the task counts by itself. Before that, nobody can tell whether one or two have
        cancelled a task in the same moment. A call by somebody who has fetched the method before the first
        limit was set is not counted.
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

    A cancellation of the task is never lost, not even in the moment in which the awaited result arrives or
    the time ends. ``asyncio.wait_for`` loses it in both cases before Python 3.12, so that a command would
    go on for a caller who has gone; and it starts a task for each wait. ``asyncio.timeout`` does the same
    as this class, but Python 3.10 does not have it.

    Limits may be nested. Each is used once, within a task, and raises the built-in ``TimeoutError``
    (which is not ``asyncio.TimeoutError`` in Python 3.10).

    Args:
        seconds: the limit; 0 or less: only what is ready at once succeeds; None: there is no limit.
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
        """Let the limit begin anew, now; None: there is no limit any more.

        Does nothing once the time is up or the block is left.
        """
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
