"""Reading a database in a thread, beside what writes it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class JournalReader:
    """One thread with a connection of its own: its reads wait for each other, and for nothing else.

    Args:
        connection: may be used in any thread, and is closed by :meth:`close`.
        name: of the thread.
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` makes of the database as it is now. Raises what that raises."""

        def work() -> T:
            if self._closing:
                raise sqlite3.OperationalError("closed")
            return read(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Break off what is being read, and close. Whoever waits for it gets an :class:`sqlite3.Error`."""
        self._closing = True
        self._connection.interrupt()
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()
