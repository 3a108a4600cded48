"""The output of commands: from its pipe into memory, or into the file of a durable job.

A byte's place in the file is its place in the output. Over the limit the head and the tail are kept: what
lies between is punched out of the file, which keeps its length. A small file beside it says where that gap
is. It is written before the hole is punched, so that a reader can tell a hole from zeros that the command
wrote. Output stops being stored a little before the disk is full.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import struct
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from remsvc.execution.supervisor.records import Gap
from remsvc.execution.supervisor.system_calls import fallocate

_MAX_READS = 32  # at 64 KiB each: more than the largest pipe an ordinary user may make (1 MiB) holds
_MAX_LEFT_OPEN = 1024
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_BLOCK = 1 << 20
_MAX_FS_BLOCK = 1 << 16
_RESERVE = 64 << 20
_RESERVED_PART = 20
_GAP = struct.Struct("!QQQ")  # start, end, and both combined: a reader may meet a half-written one


class OutputStream(ABC):
    """One output of a command: the end of a pipe, read without ever waiting for it.

    Attributes:
        fd: the pipe's descriptor; -1 once its owner has closed it.
        open: whether some process may still write to it.
        total: bytes that the command wrote.
        head: the first of them, where they are kept in memory.
        gap: what was dropped of them, where they are kept in a file.
        lost: how many of the dropped bytes could not be stored, or kept beside what could not.
        why_lost: why that was, the first time.
    """

    def __init__(self, fd: int, scratch: bytearray) -> None:
        """``scratch`` is room to read into; the outputs of one thread may share it."""
        os.set_blocking(fd, False)
        self.fd = fd
        self.open = True
        self.total = 0
        self.head = bytearray()
        self.gap = Gap()
        self.lost = 0
        self.why_lost = ""
        self._scratch = scratch

    @property
    def inode(self) -> int:
        """Tells the pipe apart among the descriptors of other processes, until it is closed."""
        return os.fstat(self.fd).st_ino

    def read(self) -> bool:
        """Take what is there, once; False when nothing was."""
        try:
            size = os.readv(self.fd, [self._scratch])
        except BlockingIOError:
            return False
        if size == 0:
            self.open = False
            return False
        self._take(size)
        return True

    def drain(self) -> None:
        """Take all that was in the pipe at this moment, even while others go on writing."""
        for _ in range(_MAX_READS):
            if not self.open or not self.read():
                return

    def close(self) -> None:
        """Close the pipe; a signal ends processes that still write to it.

        To be called once: the descriptor's number may be another's afterwards.
        """
        os.close(self.fd)
        self.fd = -1
        self.open = False

    @abstractmethod
    def _take(self, size: int) -> None:
        """Keep what was read: the first ``size`` bytes of the scratch room."""

    @abstractmethod
    def stop_keeping(self) -> None:
        """Drop what comes from now on: the command has ended."""


class OutputPipe(OutputStream):
    """An output whose first bytes are kept in memory, at most ``limit`` of them."""

    def __init__(self, fd: int, limit: int, scratch: bytearray) -> None:
        super().__init__(fd, scratch)
        self._limit = limit

    def _take(self, size: int) -> None:
        room = self._limit - len(self.head)
        if room > 0:
            self.head += self._scratch[: min(size, room)]
        self.total += size

    def stop_keeping(self) -> None:
        """Forget the head, and drop what comes from now on."""
        self.head.clear()
        self._limit = 0


class OutputFile(OutputStream):
    """An output of a durable job, which goes into a file, bounded, at stable offsets."""

    def __init__(self, fd: int, path: Path, limit: int, scratch: bytearray) -> None:
        """``limit`` is in bytes. The file, and the folder it is in, are made for the first byte."""
        super().__init__(fd, scratch)
        self._path = path
        self._file = -1
        self._limit = limit
        self._storing = True
        self._unsaid = False
        self._punched = 0

    def _take(self, size: int) -> None:
        if self._storing:
            self._store(memoryview(self._scratch)[:size])

    def stop_keeping(self) -> None:
        """Drop what comes from now on, uncounted, and close the file."""
        if self._storing:
            self._storing = False
            if self._file >= 0:
                os.close(self._file)

    def _store(self, data: memoryview) -> None:
        start, end = self.total, self.total + len(data)
        self.total = end
        try:
            if self._file < 0:
                self._create()
            if self._unsaid:
                self._say_gap()
            self._leave_room()
            while data:
                written = os.pwrite(self._file, data, start)
                start += written
                data = data[written:]
        except OSError as error:
            # No room, most likely: the command goes on, and what could not be stored is part of the gap.
            before = self.gap.end - self.gap.start
            self._drop(Gap(self._head(start), end))
            self.lost += self.gap.end - self.gap.start - before
            self.why_lost = self.why_lost or error.strerror or str(error)
            return
        kept = end - self.gap.end if self.gap.end else end
        tail = self._limit - self._limit // 2
        if end > self._limit and kept > tail + _BLOCK:
            self._drop(Gap(self._head(self._limit // 2), end - tail))

    def _create(self) -> None:
        # Not before there is something to write: a new file may have to wait for the file system's journal.
        self._path.parent.mkdir(0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o600)

    def _leave_room(self) -> None:
        # Output must not take the last of the disk from the journal: no job could end any more.
        status = os.fstatvfs(self._file)
        reserve = min(_RESERVE, status.f_blocks * status.f_frsize // _RESERVED_PART)
        if status.f_bavail * status.f_frsize < reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _head(self, start: int) -> int:
        return self.gap.start if self.gap.end else start

    def _drop(self, gap: Gap) -> None:
        """Leave out what is in ``gap``. While the disk is too full even to say so, nothing is stored."""
        self.gap = gap
        self._unsaid = True
        with contextlib.suppress(OSError):
            self._say_gap()

    def _say_gap(self) -> None:
        write_gap(self._path, self.gap)
        self._unsaid = False
        # Only whole blocks of the file system become free: the one that was cut in two, now.
        begin = max(self.gap.start, self._punched - self._punched % _MAX_FS_BLOCK)
        self._punched = self.gap.end
        if self.gap.end > begin and self._file >= 0:
            with contextlib.suppress(OSError):  # a file system without holes: bounded by nothing but itself
                mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
                fallocate(self._file, mode, begin, self.gap.end - begin)


class OpenOutputs:
    """Reads outputs as they come, those of commands that have ended as well.

    Args:
        selector: of the supervisor's loop.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._read: set[int] = set()  # the pipes that the selector looks at
        self._left_open: OrderedDict[int, OutputStream] = OrderedDict()

    def read(self, output: OutputStream, on_read: Callable[[], None]) -> None:
        """Read an output from now on, if it is not read yet; call ``on_read`` after each piece of it."""
        if output.open and output.fd not in self._read:
            self._look_at(output, on_read)

    def leave(self, output: OutputStream) -> None:
        """Read on and drop: closing would kill a background process that still writes."""
        self._left_open[output.fd] = output
        self._look_at(output, lambda: None)
        if len(self._left_open) > _MAX_LEFT_OPEN:
            self.close(next(iter(self._left_open.values())))

    def close(self, output: OutputStream) -> None:
        """Close an output, once: afterwards its number may be another's."""
        if output.fd < 0:
            return
        self._left_open.pop(output.fd, None)
        if output.fd in self._read:
            self._read.discard(output.fd)
            self._selector.unregister(output.fd)
        output.close()

    def _look_at(self, output: OutputStream, on_read: Callable[[], None]) -> None:
        def read(_: int) -> None:
            if output.fd < 0:
                return  # closed by an earlier event of the same round
            output.read()
            if not output.open:
                self.close(output)
            on_read()

        if output.fd in self._read:
            self._selector.modify(output.fd, selectors.EVENT_READ, read)
        else:
            self._selector.register(output.fd, selectors.EVENT_READ, read)
            self._read.add(output.fd)


def read_output(path: Path, offset: int, size: int) -> tuple[int, bytes]:
    """What a job's output has at ``offset``, at most ``size`` bytes of it.

    Returns:
        Where it begins, and the bytes. It begins later than ``offset`` where what lies between was
        dropped. Empty: nothing (more) has been written.
    """
    while True:
        gap = read_gap(path)
        if gap.start <= offset < gap.end:
            offset = gap.end
        length = min(size, gap.start - offset) if offset < gap.start < gap.end else size
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return offset, b""
        try:
            data = os.pread(file, length, offset)
        finally:
            os.close(file)
        after = read_gap(path)
        if after == gap or offset + len(data) <= after.start or offset >= after.end:
            return offset, data
        # A hole was punched into what was being read.


def write_gap(path: Path, gap: Gap) -> None:
    """Note the gap of the output file ``path``. Raises ``OSError``."""
    file = os.open(path.with_suffix(".gap"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.pwrite(file, _GAP.pack(gap.start, gap.end, gap.start ^ gap.end), 0)
    finally:
        os.close(file)


def read_gap(path: Path) -> Gap:
    """The gap of the output file ``path``."""
    for _ in range(_MAX_READS):
        try:
            data = path.with_suffix(".gap").read_bytes()
        except FileNotFoundError:
            return Gap()
        if len(data) < _GAP.size:
            return Gap()  # being written for the first time, before anything is dropped
        start, end, check = _GAP.unpack(data[: _GAP.size])
        if check == start ^ end and max(start, end) < 1 << 63:
            return Gap(start, end)
    raise OSError(errno.EIO, "the note of what was dropped is damaged", str(path.with_suffix(".gap")))
