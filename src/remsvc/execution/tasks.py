"""Gives every asyncio task an owner, so that none is garbage-collected, fails unheard or outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class OwnedTasks:
    """The tasks of one owner, who closes them.

    Args:
        logger: told of those that failed while nobody waited for them.
        failure: what to say of them.
    """

    def __init__(self, logger: logging.Logger, failure: str) -> None:
        self._logger = logger
        self._failure = failure
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine beside everything else."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def to_the_end(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Do what must not be left half done, even if its caller has gone away."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._answered)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel all that run, and wait for them."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # for the caller, who may not be there any more

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._closing:
            self._logger.error("%s", self._failure, exc_info=error)
