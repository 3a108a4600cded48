"""Renders templates in threads: they may take long, ask Airflow for values, or never end.

The threads are ours, and daemons: one that never ends does not keep its process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

from remsvc.time_limit import TimeLimit
from remsvc_provider.per_loop import PerLoop

AT_ONCE = 4
"""Threads of an event loop. One that never ends keeps its place, so that no crowd of them comes about."""

T = TypeVar("T")

_places = PerLoop(lambda: asyncio.Semaphore(AT_ONCE))


async def in_thread(work: Callable[[], T], timeout: float) -> T:
    """What ``work`` gives, called in a thread with the caller's context variables.

    Args:
        work: is not ended when this is cancelled, or takes too long.
        timeout: seconds, for a free place and the work together.

    Raises:
        TimeoutError: it has not ended in time.
        Exception: what ``work`` raises.
    """
    loop = asyncio.get_running_loop()
    places = _places.get()
    context = copy_context()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        places.release()
        if result.done():
            return  # nobody waits any more
        if error is None:
            result.set_result(value)  # type: ignore[arg-type]
        else:
            result.set_exception(error)

    def run() -> None:
        value, error = None, None
        try:
            value = context.run(work)
        except BaseException as raised:  # noqa: BLE001  whatever it is, it is the caller's
            # What a future cannot hold, or what would end the caller's loop, is wrapped.
            plain = isinstance(raised, Exception) and not isinstance(raised, StopIteration)
            error = raised if plain else RuntimeError(repr(raised))
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, value, error)

    with TimeLimit(timeout):
        await places.acquire()
        try:
            threading.Thread(target=run, name="remsvc-render", daemon=True).start()
        except RuntimeError:  # no more threads
            places.release()
            raise
        return await result
