"""Reads single processes from ``/proc`` (proc(5)), and signals them. Linux."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_ENOUGH = 1 << 16


@dataclass(frozen=True, slots=True)
class ProcEntry:
    """A process, told apart from a later one that gets the same number by when it started.

    Attributes:
        pid: its number.
        start_ticks: when it started, in ticks since the host did.
        parent, session: the numbers of its parent and of its session's leader.
    """

    pid: int
    start_ticks: int
    parent: int
    session: int


def read_process(pid: int) -> ProcEntry | None:
    """The process that has this number, or whose thread has; None where it has ended."""
    fields = _stat(pid)
    if not fields or (fields[0] == b"Z" and int(fields[17]) <= 1):
        # It looks like a zombie, too, when only its first thread has ended.
        return None
    return ProcEntry(pid, int(fields[19]), int(fields[1]), int(fields[3]))


def start_ticks(pid: int) -> int:
    """When the process with this number started, in ticks, ended or not; 0 where there is none."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def session_of(pid: int) -> int:
    """The session that a process is in, or was when it ended; 0 where there is none."""
    fields = _stat(pid)
    return int(fields[3]) if fields else 0


def children(pid: int) -> Iterator[int]:
    """The numbers of its children. The kernel may leave one out while others end."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for task in tasks:
        yield from map(int, read_file(f"/proc/{pid}/task/{task}/children").split())


def real_user(pid: int) -> int:
    """The user who runs it, whatever rights it has; -1 where it has ended."""
    return _status(pid, b"Uid:")


def process_of(thread: int) -> int:
    """The number of the process that a thread belongs to; -1 where it has ended."""
    return _status(thread, b"Tgid:")


def _status(pid: int, name: bytes) -> int:
    for line in read_file(f"/proc/{pid}/status").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return -1


def environment(pid: int) -> list[bytes]:
    """Its variables as it was started, ``NAME=value`` each; none where they cannot be read."""
    return read_file(f"/proc/{pid}/environ").split(b"\0")


class OpenPipe(NamedTuple):
    """An end of a pipe that a process has open.

    Attributes:
        descriptor: its number there.
        inode: which pipe it is of.
        reads, writes: what the process may do with it.
    """

    descriptor: int
    inode: int
    reads: bool
    writes: bool


def pipes_of(pid: int, most: int) -> Iterator[OpenPipe]:
    """The pipes among so many descriptors of a process; none where they are guarded.

    No descriptor is followed: what it is open on may be a file system that never answers.
    """
    with contextlib.suppress(OSError):
        for number, entry in enumerate(os.scandir(f"/proc/{pid}/fd")):
            if number == most:
                return
            with contextlib.suppress(OSError):
                if (inode := _pipe_inode(entry.path)) is not None:
                    mode = entry.stat(follow_symlinks=False).st_mode
                    yield OpenPipe(
                        int(entry.name), inode, bool(mode & stat.S_IRUSR), bool(mode & stat.S_IWUSR)
                    )


def open_pipe(pid: int, pipe: OpenPipe) -> int | None:
    """Open what a process reads of a pipe, too; None where it has that no more, or it is guarded."""
    try:
        # Opened so, it is only named: it may have become something that never answers.
        named = os.open(f"/proc/{pid}/fd/{pipe.descriptor}", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        own = f"/proc/self/fd/{named}"
        if _pipe_inode(own) != pipe.inode:
            return None
        return os.open(own, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(named)


def _pipe_inode(path: str) -> int | None:
    text = os.readlink(path)  # noqa: PTH115  a path object takes twice as long
    return int(text[6:-1]) if text.startswith("pipe:[") else None


def describe(pid: int) -> str:
    """It for a person: its number, and the name that it gives itself, in plain characters."""
    name = read_file(f"/proc/{pid}/comm").rstrip(b"\n").decode(errors="replace")
    shown = "".join(mark if mark.isascii() and mark.isprintable() else "?" for mark in name)
    return f"{pid} ({shown})" if shown else str(pid)


def is_there(process: ProcEntry) -> bool:
    """Whether it has not ended, and its number is no other's."""
    now = read_process(process.pid)
    return now is not None and now.start_ticks == process.start_ticks


def send_signal(process: ProcEntry, number: int) -> bool:
    """Signal a process, and no other that has got its number. Whether it may be signalled.

    Raises:
        OSError: no descriptor is free.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if is_there(process):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    finally:
        os.close(handle)
    return True


def read_file(path: str) -> bytes:
    """What is in a file of ``/proc``; nothing where it, or its process, is gone or guarded."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = os.read(file, _ENOUGH)
        while more := os.read(file, _ENOUGH):
            data += more
    except OSError:
        return b""
    finally:
        os.close(file)
    return data


def _stat(pid: int) -> list[bytes]:
    """The fields of ``/proc/PID/stat`` from the state on; none where it is gone."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        text = os.read(file, 4096)
    except OSError:
        return []
    finally:
        os.close(file)
    return text[text.rindex(b")") + 2 :].split()
