"""A task's log, written while commands run.

A log call costs most of a millisecond, however much it says, and the event loop is shared by thousands of
triggers. So lines are gathered into few calls, and all calls of one loop together get at most about half
of its time. A call waits, for seconds at times, until the triggerer's parent process reads what it gets:
that is left to a thread, as Airflow does it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Protocol

from remsvc_provider.masking import Masking
from remsvc_provider.per_loop import PerLoop

GATHER = 0.2
"""Seconds to wait for more lines, before those that have come are written."""
CALL_CHARACTERS = 32_768
"""Of one log call, unless a single line has more."""
BACKLOG_CHARACTERS = 262_144
"""Waiting to be written; whoever has more for a full log leaves it out, and says so."""

MAX_PAUSE = 0.1
"""Seconds to leave to others after a call."""


class Log(Protocol):
    """The part of a task's logger that is used here."""

    def info(self, event: str, /) -> Any: ...
    def warning(self, event: str, /) -> Any: ...
    def error(self, event: str, /) -> Any: ...
    async def ainfo(self, event: str, /) -> Any: ...
    async def awarning(self, event: str, /) -> Any: ...
    async def aerror(self, event: str, /) -> Any: ...


class LiveLog:
    """Writes lines to a task's log in their order, soon after they are added.

    It belongs to the running event loop. :meth:`close` it.

    Args:
        log: the task's logger.
        masking: of the secrets in them.
    """

    def __init__(self, log: Log, masking: Masking) -> None:
        self._log = log
        self._masking = masking
        self._lines: deque[tuple[str, str]] = deque()  # level, text
        self._size = 0
        self._turn = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether so much waits that output should rather be left out."""
        return self._size >= BACKLOG_CHARACTERS

    @property
    def has_room(self) -> bool:
        """Whether a log that was full has caught up."""
        return self._size <= BACKLOG_CHARACTERS // 4

    def add(self, text: str, level: str = "info") -> None:
        """Add lines. ``level``: ``info``, ``warning`` or ``error``."""
        text = self._masking(text)
        self._lines.append((level, text))
        self._size += len(text) + 1
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="remsvc-live-log")

    async def flush(self) -> None:
        """Write all that was added so far."""
        async with self._turn:
            while self._lines:
                await self._write_some()

    async def close(self) -> None:
        """Write what is left, and end."""
        try:
            await self.flush()
        finally:
            if self._writer is not None:
                self._writer.cancel()
                await asyncio.wait([self._writer])

    async def _write(self) -> None:
        """Write what there is, and end: most commands are silent most of the time."""
        while self._lines:
            await asyncio.sleep(GATHER)
            async with self._turn:
                if self._lines:
                    await self._write_some()

    async def _write_some(self) -> None:
        """One log call: the next lines of one level."""
        async with _gates.get():
            if not self._lines:
                return
            level = self._lines[0][0]
            texts: list[str] = []
            size = 0
            while self._lines and self._lines[0][0] == level:
                following = len(self._lines[0][1]) + 1
                if texts and size + following > CALL_CHARACTERS:
                    break
                texts.append(self._lines.popleft()[1])
                size += following
            self._size -= size
            started = time.perf_counter()
            await getattr(self._log, f"a{level}")("\n".join(texts))
            await asyncio.sleep(min(time.perf_counter() - started, MAX_PAUSE))


_gates = PerLoop(asyncio.Lock)
"""Whoever holds it may write. It is held as long again as the writing took."""
