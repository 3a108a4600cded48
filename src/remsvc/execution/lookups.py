"""Looks up what may never answer, such as users and programs, without holding up anything else.

Each lookup has a thread of its own. The event loop's own threads (``asyncio.to_thread``) are few and shared
by the whole server: lookups that hang would soon take all of them, and a server that ends waits for them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from weakref import WeakValueDictionary

from remsvc.errors import StartError
from remsvc.time_limit import TimeLimit

MAX_LOOKUPS = 4
"""Lookups of one caller at a time; the others of that caller wait."""

_START_SECONDS = 10.0

T = TypeVar("T")


class Lookups:
    """Runs lookups in threads, a few at a time for each caller. A server has one, for its event loop."""

    def __init__(self) -> None:
        # A caller's entry stays while a lookup of that caller waits or runs: each of them refers to it.
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, caller: str, look: Callable[[], T]) -> T:
        """What ``look`` returns or raises. To be given a time limit.

        Cancelled, the look goes on for nobody, and counts for its caller until it has its answer.
        """
        places = self._places.get(caller)
        if places is None:
            places = self._places[caller] = asyncio.Semaphore(MAX_LOOKUPS)
        await places.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(give: Callable[[], None]) -> None:
            places.release()
            if not answer.done():
                give()

        def work() -> None:
            give: Callable[[], None]
            try:
                result = look()
            except BaseException as error:  # noqa: BLE001
                failure = error  # beyond the block
                give = lambda: answer.set_exception(failure)  # noqa: E731
            else:
                give = lambda: answer.set_result(result)  # noqa: E731
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, give)

        try:
            # A daemon: nothing may wait for it, not even the end of the server.
            threading.Thread(target=work, name="lookup", daemon=True).start()
        except BaseException:
            places.release()
            raise
        return await answer

    async def for_start(self, caller: str, what: str, look: Callable[[], T]) -> T:
        """As :meth:`run`, for what is to be started.

        Args:
            what: is looked up, as an error names it.

        Raises:
            StartError: it took too long.
        """
        try:
            with TimeLimit(_START_SECONDS):
                return await self.run(caller, look)
        except TimeoutError:
            raise StartError(f"{what} could not be looked up in time") from None
