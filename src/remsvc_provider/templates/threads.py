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
"""Threads of an event loop, not counting those that took too long. As many more are for what is urgent."""
MOST_LEFT = 4
"""Threads that took too long, and that nobody waits for any more. While there are so many, no other is
started. So they cannot become a crowd, and no task waits for something that does not answer."""
LONGEST_WAIT = 300.0
"""Seconds for one's turn. A thousand tasks that start together, each asking Airflow for 0.1 s, take 100."""

T = TypeVar("T")


class _Places:
    """Places for threads. A thread has one until it ends, or until it has taken too long."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(AT_ONCE)
        self.left = 0


class _Threads:
    """The places that one event loop has."""

    def __init__(self) -> None:
        self.ordinary = _Places()
        self.urgent = _Places()


_threads = PerLoop(_Threads)


async def in_thread(work: Callable[[], T], timeout: float, *, urgent: bool = False) -> T:
    """What ``work`` gives, called in a thread with the caller's context variables.

    Args:
        work: is not ended when this is cancelled, or takes too long.
        timeout: seconds from when its turn has come; if urgent, from now on.
        urgent: has places of its own, so only others that are urgent come before it.

    Raises:
        TimeoutError: its turn did not come, or it has not ended in time; says which.
        Exception: what ``work`` raises.
    """
    threads = _threads.get()
    places, longest_wait = (threads.urgent, timeout) if urgent else (threads.ordinary, LONGEST_WAIT)
    loop = asyncio.get_running_loop()
    asked = loop.time()
    try:
        with TimeLimit(longest_wait):
            await places.free.acquire()
    except TimeoutError:
        raise TimeoutError(
            f"its templates' turn to be rendered has not come within {longest_wait:g} s"
        ) from None
    if places.left >= MOST_LEFT:
        places.free.release()
        raise TimeoutError(
            f"the templates of {places.left} other tasks are still being rendered, and too late"
        )
    return await _start(work, places, timeout, asked if urgent else loop.time())


def _start(work: Callable[[], T], places: _Places, timeout: float, since: float) -> asyncio.Future[T]:
    """Start ``work`` in a thread, which has a place now, whether or not somebody goes on waiting for it."""
    loop = asyncio.get_running_loop()
    context = copy_context()
    result: asyncio.Future[T] = loop.create_future()
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        places.left += 1
        places.free.release()
        if not result.done():
            result.set_exception(TimeoutError(f"rendering took longer than {timeout:g} s"))

    limit = loop.call_at(since + timeout, give_up)

    def settle(value: T | None, error: BaseException | None) -> None:
        limit.cancel()
        if late:
            places.left -= 1
        else:
            places.free.release()
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

    try:
        threading.Thread(target=run, name="remsvc-render", daemon=True).start()
    except RuntimeError as error:  # the process may have no more
        settle(None, error)
    return result
