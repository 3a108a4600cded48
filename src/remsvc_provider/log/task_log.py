"""Writes a task's log while its commands run: soon after each line, and no faster than Airflow takes it.

Nothing is left out here. Whoever has much to log waits for :meth:`TaskLog.room`. Meanwhile it reads no more
from the server, which keeps all of the output.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from remsvc.time_limit import TimeLimit
from remsvc_provider.log.pace import RECORD_CHARACTERS, log_pace
from remsvc_provider.log.terminal_text import END_GROUP, GROUP, without_groups
from remsvc_provider.masking import Masking

BACKLOG_CHARACTERS = 16_384
"""Waiting to be written; whoever has more waits."""
SPACING = 0.01
"""Seconds between two records of a task that prints line by line: Airflow takes one record with many lines as
quickly as one with a single line."""
FLUSH_SECONDS = 5.0
"""Least time for which a task's log is waited for at its end. It may be too short: a triggerer's parent takes
nothing for up to ten seconds while it builds an API server, when it is first asked for a connection."""


class Log(Protocol):
    """What is used here of a task's logger."""

    def info(self, event: str, /) -> Any: ...
    def warning(self, event: str, /) -> Any: ...
    def error(self, event: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    level: str
    text: str
    alone: bool = False
    """Whether it must be a record of its own."""


class TaskLog:
    """Writes lines to a task's log in their order.

    It belongs to the running event loop, and to the task that made it, whose log that is. :meth:`flush` it
    at the end.

    Args:
        log: the task's logger.
        masking: of the secrets in the lines.
    """

    def __init__(self, log: Log, masking: Masking) -> None:
        self._log = log
        self._masking = masking
        # Airflow finds the task's log by what is set there.
        self._context = contextvars.copy_context()
        self._entries: deque[_Entry] = deque()
        self._size = 0
        self._writing = False
        self._given_up = False
        self._wrote_at = float("-inf")
        self._soon: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def full(self) -> bool:
        """Whether whoever has more should wait for :meth:`room`."""
        return self._size >= BACKLOG_CHARACTERS

    def add(self, text: str, level: str = "info") -> None:
        """Add lines. ``level``: ``info``, ``warning`` or ``error``."""
        for record in _records(without_groups(self._masking(text))):
            self._add(_Entry(level, record))

    def begin_group(self, title: str) -> None:
        """Have what follows fold, in Airflow's page, under a title of one line."""
        self._add(_Entry("info", GROUP + without_groups(self._masking(title)), alone=True))

    def end_group(self) -> None:
        """End the group that was begun last."""
        self._add(_Entry("info", END_GROUP, alone=True))

    async def room(self) -> None:
        """Wait until most of what was added is written."""
        if self.full:
            await self._until(lambda: self._size < BACKLOG_CHARACTERS // 2)

    async def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Write all that was added so far. What Airflow does not take within so many seconds is put into the
        socket all the same where that has room. Otherwise it is left out, and the log says so."""
        if self._given_up:
            return
        try:
            with TimeLimit(seconds):
                await self._until(lambda: not self._entries and not self._writing)
        except TimeoutError:
            log_pace().write_last(self)
            if not self._entries:
                return
            self._given_up = True
            left_out, size = list(self._entries), self._size
            self._entries.clear()
            self._size = 0
            self.add(f"... {size} characters are left out here: Airflow takes no more", "warning")
            if any(entry.text == END_GROUP for entry in left_out):
                self.end_group()

    # For the pace

    def take(self) -> Callable[[], object] | None:
        """What writes the next lines, of one level, as one record; None where there are none."""
        entries = self._entries
        if not entries:
            return None
        first = entries.popleft()
        texts = [first.text]
        size = len(first.text) + 1
        while not first.alone and entries and entries[0].level == first.level and not entries[0].alone:
            following = len(entries[0].text) + 1
            if size + following > RECORD_CHARACTERS:
                break
            texts.append(entries.popleft().text)
            size += following
        self._size -= size
        self._writing = True
        return partial(self._context.run, getattr(self._log, first.level), "\n".join(texts))

    def wrote(self) -> None:
        """A record was written, or could not be."""
        self._writing = False
        self._wrote_at = time.monotonic()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _add(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._size += len(entry.text) + 1
        pace = log_pace()
        if self._soon is None and not pace.has(self):
            delay = self._wrote_at + SPACING - time.monotonic()
            if delay > 0 and not self.full:
                self._soon = asyncio.get_running_loop().call_later(delay, self._enter)
            else:
                pace.enter(self)

    def _enter(self) -> None:
        self._soon = None
        log_pace().enter(self)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


def _records(text: str) -> Iterator[str]:
    """Lines in portions, each of which is no longer than a record should be; a long line is one."""
    start = 0
    while len(text) - start > RECORD_CHARACTERS:
        end = text.rfind("\n", start, start + RECORD_CHARACTERS + 1)
        if end < 0:
            end = text.find("\n", start)
        if end < 0:
            break
        yield text[start:end]
        start = end + 1
    yield text[start:]
