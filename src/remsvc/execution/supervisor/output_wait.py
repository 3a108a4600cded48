"""Waits for output that is still on its way when its command has ended. Linux; for the supervisor only.

A process that merely holds an output open, such as a daemon, is not waited for. One that passes on what the
command wrote is, as in ``exec > >(tee log)``: it reads a pipe that nobody writes to any more, so that it
comes to the pipe's end, and then to its own.
"""

from __future__ import annotations

import array
import dataclasses
import fcntl
import os
import select
import termios
import time
from dataclasses import dataclass, field

from remsvc.execution.supervisor.process_tree import Others, Tree, walk
from remsvc.execution.supervisor.processes import OpenPipe, describe, open_pipe, pipes_of

_MAX_PROCESSES = 32
_MAX_STEPS = 1000
_MAX_DESCRIPTORS = 64
_STILL_SECONDS = 1.0
_NAMED = 5


class OutputWait:
    """Decides how long to wait for output of a command that has ended.

    Args:
        seconds: the longest that it may take.

    Attributes:
        note: what was cut off, for a person; empty for nothing.
    """

    def __init__(self, seconds: float) -> None:
        now = time.monotonic()
        self.note = ""
        self._until = now + seconds
        self._moved = now
        self._seen: tuple[int, ...] = ()

    @property
    def left(self) -> float:
        """Seconds until it is over in any case."""
        return max(0.0, self._until - time.monotonic())

    def goes_on(self, tree: Tree, others: Others, totals: tuple[int, int]) -> bool:
        """Whether to wait on. Where nothing has moved for a while, what is there does not end by itself."""
        try:
            # The kernel's list of children may miss one while others end (proc(5)): look twice.
            way = _on_its_way(tree, others) or _on_its_way(tree, others)
        except _TooManyError:
            self.note = "output may be cut off: too many processes may still be passing it on"
            return False
        if way is None:
            return False
        now = time.monotonic()
        seen = (*totals, way.unread, *way.alive)
        if seen != self._seen:
            self._seen, self._moved = seen, now
        if now < self._until and now < self._moved + _STILL_SECONDS:
            return True
        names = ", ".join(map(describe, way.by[:_NAMED]))
        self.note = f"output may be cut off: process {names} was still passing it on"
        return False


@dataclass(slots=True)
class _Pipes:
    """The pipes that a process has, by their inode numbers."""

    reads: dict[int, OpenPipe] = field(default_factory=dict)
    writes: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _OnItsWay:
    """Output that some processes still have to pass on.

    Attributes:
        by: those processes.
        alive: they, and all others of the command.
        unread: bytes that they have yet to read.
    """

    by: tuple[int, ...]
    alive: tuple[int, ...]
    unread: int


class _TooManyError(Exception):
    """There are too many processes to be asked."""


def _on_its_way(tree: Tree, others: Others) -> _OnItsWay | None:
    """What is on its way to the command's outputs; None for nothing.

    Raises:
        _TooManyError: it cannot be told.
    """
    held: dict[int, _Pipes] = {}
    others = dataclasses.replace(others, alone=False)
    for number, process in enumerate(walk(tree, others, set())):
        if number == _MAX_STEPS:
            raise _TooManyError
        if process is None:
            continue
        if len(held) == _MAX_PROCESSES:
            raise _TooManyError
        held[process.pid] = _pipes_of(process.pid)
    found, unread = set(), 0
    pending = [pid for pid, pipes in held.items() if pipes.writes & tree.pipes]
    seen = set(pending)
    while pending:
        reader = pending.pop()
        for inode, pipe in held[reader].reads.items():
            writers = {pid for pid, pipes in held.items() if inode in pipes.writes}
            pending += writers - seen
            seen |= writers
            if not writers and (size := _size_at_end(reader, pipe)) is not None:
                found.add(reader)
                unread += size
    return _OnItsWay(tuple(sorted(found)), tuple(sorted(held)), unread) if found else None


def _pipes_of(pid: int) -> _Pipes:
    pipes = _Pipes()
    for pipe in pipes_of(pid, _MAX_DESCRIPTORS):
        if pipe.writes:
            pipes.writes.add(pipe.inode)
        if pipe.reads:
            pipes.reads[pipe.inode] = pipe
    return pipes


def _size_at_end(pid: int, pipe: OpenPipe) -> int | None:
    """How much is still in a pipe that nobody writes to; None where somebody does."""
    file = open_pipe(pid, pipe)
    if file is None:
        return None
    try:
        poll = select.poll()
        poll.register(file, select.POLLIN)
        if not any(events & select.POLLHUP for _, events in poll.poll(0)):
            return None
        size = array.array("i", [0])
        fcntl.ioctl(file, termios.FIONREAD, size)
        return size[0]
    except OSError:
        return None
    finally:
        os.close(file)
