"""Renders templates in threads: they may ask Airflow for values, and whatever answers may never do so.

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
"""Threads of an event loop that somebody waits for; as many besides for what is urgent."""
MOST_LEFT = 4
"""Threads that nobody waits for any more, because they took too long. While there are so many, no other is
started: no crowd of them comes about, and nobody waits for what does not answer."""
LONGEST_WAIT = 300.0
"""Seconds for one's turn. A thousand tasks that start together, each asking Airflow for 0.1 s, take 100."""

T = TypeVar("T")


class _Threads:
    """Of an event loop."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(AT_ONCE)
        self.urgent_places = asyncio.Semaphore(AT_ONCE)
        self.left = 0


_threads = PerLoop(_Threads)


async def in_thread(work: Callable[[], T], timeout: float, *, urgent: bool = False) -> T:
    """What ``work`` gives, called in a thread with the caller's context variables.

    Args:
        work: is not ended when this is cancelled, or takes too long.
        timeout: seconds, from when it is its turn.
        urgent: only others that are urgent come first, and ``timeout`` counts from now on.

    Raises:
        TimeoutError: its turn did not come, or it has not ended in time; says which.
        Exception: what ``work`` raises.
    """
    threads = _threads.get()
    places, longest_wait = (threads.urgent_places, timeout) if urgent else (threads.places, LONGEST_WAIT)
    turn = TimeLimit(longest_wait)
    try:
        with turn:
            await places.acquire()
    except TimeoutError:
        raise TimeoutError(f"its turn to be rendered has not come within {longest_wait:g} s") from None
    limit = TimeLimit(turn.left if urgent else timeout)
    try:
        if threads.left >= MOST_LEFT:
            raise TimeoutError(f"{threads.left} other renderings do not end")
        with limit:
            return await _start(work, threads)
    except TimeoutError:
        if limit.expired:
            raise TimeoutError(f"rendering took longer than {timeout:g} s") from None
        raise
    finally:
        places.release()


async def _start(work: Callable[[], T], threads: _Threads) -> T:
    loop = asyncio.get_running_loop()
    context = copy_context()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():
            threads.left -= 1  # nobody waits any more
        elif error is None:
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

    threading.Thread(target=run, name="remsvc-render", daemon=True).start()
    try:
        return await result
    except asyncio.CancelledError:
        if result.cancelled():
            threads.left += 1
        raise
