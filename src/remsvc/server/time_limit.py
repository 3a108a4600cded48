"""A limit of time for what a block awaits, at the price of one timer."""

from __future__ import annotations

import asyncio
from types import TracebackType


class TimeLimit:
    """Cancels what the block awaits after some seconds, and raises ``TimeoutError`` from it.

    ``asyncio.wait_for`` would start a task for each wait, and before Python 3.12 it swallows a cancellation
    that comes together with the result: a command would go on for a caller who has gone.
    ``asyncio.timeout`` is not in Python 3.10.
    Whoever cancels the task in the same moment goes unheard, so this is for waits whose callers end
    either way. Used once.

    Args:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._expired and kind is asyncio.CancelledError:
            if hasattr(self._task, "uncancel"):
                self._task.uncancel()
            raise TimeoutError from None

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
