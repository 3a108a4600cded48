"""When a task's log may be written: one pace for all tasks whose triggers share an event loop.

Whatever a task logs goes through one socket to the process that has started this one: the triggerer's parent,
or a worker's supervisor. That process reads 4 kB at a time, and asks the database in between: some 0.8 MB a
second, and less where it has many triggers. While the socket is full, a log call blocks its caller, and
with it all triggers of the event loop. So the socket is never filled: before each record, this module looks
how many bytes wait in it, and writes only while few do. The log goes as fast as the other process
reads it, and a line that comes alone waits behind a few kilobytes at most.

Only the last lines of a task that cannot wait any longer go beyond that, up to half of what the socket holds.
The other half is for what Airflow itself logs, with calls that would block.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from typing import Protocol

from remsvc_provider.per_loop import PerLoop

RECORD_CHARACTERS = 4_000
"""Of one record, unless a single line has more: about what is taken at a time."""
MOST_WAITING = 8_192
"""Bytes, with what the system adds to each record. While more wait, nothing is written."""
ROOM_LOOK_SECONDS = 0.003
"""Between two looks at a socket that has no room."""
UNSEEN_SECONDS = 0.006
"""Between two records where it cannot be seen how much waits."""


class LogSocket:
    """The socket through which this process's log goes to the process that has started it.

    Args:
        descriptor: of this process's end.
        size: how many bytes it holds, with what the system adds to each record.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size

    @classmethod
    def of_this_process(cls) -> LogSocket | None:
        """None where the log goes somewhere else, or where it cannot be seen how much waits."""
        if sys.platform != "linux":
            return None
        import structlog

        # The file that all loggers write to: Airflow's LoggerFactory, 3.1.0 to 3.3.2, keeps it as ``io``.
        file = getattr(structlog.get_config()["logger_factory"], "io", None)
        try:
            descriptor: int = file.fileno()  # type: ignore[union-attr]
            with socket.socket(fileno=os.dup(descriptor)) as end:
                local = end.family == socket.AF_UNIX and end.type == socket.SOCK_STREAM
                found = cls(descriptor, end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
            return found if local and found.waiting >= 0 else None
        except (AttributeError, OSError, ValueError):
            return None

    @property
    def waiting(self) -> int:
        """Bytes that were not taken yet. Raises :class:`OSError`."""
        import fcntl
        import termios

        (size,) = struct.unpack("i", fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, b"\0" * 4))
        return int(size)

    @property
    def has_room(self) -> bool:
        """Whether a record can be written at once. True where the socket is gone: writing says how."""
        return self._has_at_most(MOST_WAITING)

    @property
    def has_room_for_the_last(self) -> bool:
        """Whether the last record of a task that can wait no longer can be written at once."""
        return self._has_at_most(self._size // 2)

    def _has_at_most(self, most: int) -> bool:
        try:
            return self.waiting <= most
        except OSError:
            return True


class PacedLog(Protocol):
    """What takes turns: one task's log."""

    def take(self) -> Callable[[], object] | None:
        """What writes its next record, to be called in whatever thread; None where it has none."""

    def wrote(self) -> None:
        """The record was written, or could not be."""


class LogPace:
    """Gives the logs of one event loop their turns, a record each.

    Whoever has printed nothing for a while comes first, then all others, one after the other, as the queues
    of a network are served (RFC 8290, section 4.1). So a line that comes alone need not wait until ten others
    have had their turns, and nobody gets more by printing in small portions.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = LogSocket.of_this_process()
        self._fresh: deque[PacedLog] = deque()
        self._others: deque[PacedLog] = deque()
        self._queued: set[PacedLog] = set()
        self._serving: asyncio.Task[None] | None = None

    def has(self, log: PacedLog) -> bool:
        """Whether a log takes turns now."""
        return log in self._queued

    def enter(self, log: PacedLog) -> None:
        """Have a log take turns until it has nothing more to write."""
        if log in self._queued:
            return
        self._queued.add(log)
        self._fresh.append(log)
        if self._serving is None or self._serving.done():
            # In no task's context, whose values would stay alive.
            self._serving = contextvars.Context().run(self._loop.create_task, self._serve())

    def write_last(self, log: PacedLog) -> None:
        """Have a log write what it has left, at once, until the socket is half full."""
        while self._socket is not None and self._socket.has_room_for_the_last and (write := log.take()):
            self._call(write)
            log.wrote()

    async def _serve(self) -> None:
        while self._queued:
            if self._socket is not None and not self._socket.has_room:
                await asyncio.sleep(ROOM_LOOK_SECONDS)
                continue
            log = (self._fresh or self._others).popleft()
            if (write := log.take()) is None:
                self._queued.discard(log)
                continue
            if self._socket is not None:
                self._call(write)
            else:
                await asyncio.to_thread(self._call, write)
            log.wrote()
            # Even where it has no more: whoever prints little and often has to wait for the others, too.
            self._others.append(log)
            await asyncio.sleep(0 if self._socket is not None else UNSEEN_SECONDS)

    def _call(self, write: Callable[[], object]) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001  of whatever writes; the commands go on
            context = {"message": "a task's log could not be written", "exception": error}
            self._loop.call_soon_threadsafe(self._loop.call_exception_handler, context)


_paces = PerLoop(LogPace)


def log_pace() -> LogPace:
    """The running loop's.

    Raises:
        RuntimeError: no event loop is running.
    """
    return _paces.get()
