"""Writes the audit log's file: a chain of lines that goes on after crashes, full disks and rotation.

The file is only ever appended to, so it may have the append-only attribute. Where a write was cut short,
the next line says so. All of this blocks, and is used by one thread at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from remsvc.server.audit.chain import (
    HEAD_BYTES,
    HEAD_SUFFIX,
    KEY_SUFFIX,
    ChainedLine,
    Head,
    HeadError,
    encode_line,
    line_hash,
    parse_line,
    torn,
)

_FLAGS = os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FLAGS |= getattr(os, "O_NONBLOCK", 0)  # a FIFO in the file's place is refused, not waited for
_KEY_BYTES = 32
_BLOCK = 1 << 16
_SYNC_HEAD_SECONDS = 1.0

_logger = logging.getLogger("remsvc.audit")

Record = Mapping[str, object]


class AuditFileInUseError(OSError):
    """Another server writes to the file."""


def now() -> str:
    """The time as it stands in a record: UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


class AuditFile:
    """Appends records to the file. Not open at first: :meth:`write` opens it.

    Args:
        path: the log; the head is beside it.
        key: the file of the key that the head is made with, made where there is none; None for the
            one beside the log.
    """

    def __init__(self, path: Path, key: Path | None = None) -> None:
        self._path = path
        self._head_path = path.with_name(path.name + HEAD_SUFFIX)
        self._key_path = key or path.with_name(path.name + KEY_SUFFIX)
        self._fd = -1
        self._head_fd = -1
        self._key = b""
        self._last = ChainedLine()
        self._size = 0
        self._unended = False
        self._opened: dict[str, object] | None = None
        self._found: list[str] = []
        self._head_synced = 0.0

    def open(self, reason: str) -> None:
        """Open the file and find the end of the chain. The next write begins with a record of that.

        Raises:
            AuditFileInUseError: another server writes to it.
            OSError: it cannot be opened.
        """
        self.release()
        try:
            self._fd = _open_regular(self._path, os.O_RDWR | os.O_APPEND)
            _lock(self._fd, self._path)
            self._size = os.fstat(self._fd).st_size
            self._key, new_key = _read_key(self._key_path)
            end = self._find_end(self._open_head(new_key))
            _sync_directory(self._path.parent)
        except BaseException:
            self.release()
            raise
        self._opened = {"event": "log", "action": "opened", "reason": reason, **end}

    def write(self, records: Sequence[Record]) -> list[bytes]:
        """Append records.

        Returns:
            Their lines, which are on disk then.

        Raises:
            OSError: nobody knows which of them are on disk. The next call looks, and goes on from there.
        """
        try:
            if self._fd < 0:
                self.open("recovered")
            self._look_around()
            return self._append(records)
        except BaseException:
            self.release()
            raise

    def rotated(self) -> bool:
        """Whether the path is another file by now, or none."""
        try:
            return self._fd >= 0 and not os.path.samestat(os.fstat(self._fd), os.lstat(self._path))
        except FileNotFoundError:
            return True

    def close(self) -> list[bytes]:
        """Write that the file ends here, and close it. Raises ``OSError``; it is closed all the same."""
        if self._fd < 0:
            return []
        try:
            return self._append([{"event": "log", "action": "closed"}], final=True)
        finally:
            self.release()

    def space(self) -> tuple[int, int]:
        """Bytes that are free on its disk for the server's user, and all of them. Raises ``OSError``."""
        usage = shutil.disk_usage(self._path.parent)
        return usage.free, usage.total

    def sync_head(self) -> None:
        """Bring the head to the disk. Raises ``OSError``."""
        if self._head_fd >= 0:
            os.fsync(self._head_fd)
            self._head_synced = time.monotonic()

    def release(self) -> None:
        """Close the descriptors, and write nothing."""
        self._opened = None
        for fd in (self._fd, self._head_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._head_fd = -1

    def _append(self, records: Sequence[Record], *, final: bool = False) -> list[bytes]:
        last, lines = self._last, []
        first: list[Record] = [self._opened] if self._opened else []
        first += [{"event": "log", "action": "found", "problem": problem} for problem in self._found]
        if first and not self._size:
            first[0] = {**first[0], "file": "new"}
        for record in (*first, *records):
            place = {"seq": last.seq + 1, "time": record.get("time") or now()}
            lines.append(encode_line({**place, **record, "prev": last.hash}))
            last = ChainedLine(last.seq + 1, line_hash(lines[-1][:-1]))
        data = memoryview(b"".join(lines))
        if self._unended:
            data = memoryview(b"\n" + data)  # ends what was cut short
        size = self._size + len(data)
        while data:
            data = data[os.write(self._fd, data) :]
        _sync(self._fd)
        self._opened, self._found, self._last, self._size = None, [], last, size
        self._unended = False
        self._write_head()
        # A head that is behind after a loss of power costs nothing but the proof for the last lines.
        if final or time.monotonic() - self._head_synced > _SYNC_HEAD_SECONDS:
            self.sync_head()
        return lines

    def _look_around(self) -> None:
        """Notice what somebody else has done to the files since the last write."""
        status = os.fstat(self._fd)
        if status.st_nlink == 0:
            self._note("the file was removed while the server wrote it")
            self.open("removed")
        elif status.st_size != self._size:
            found = f"the file had {self._size} bytes, and has {status.st_size}: somebody else changed it"
            self._size = status.st_size
            self._unended = self._ends_within_a_line(self._size)
            self._note(found)
        if os.fstat(self._head_fd).st_nlink == 0:
            os.close(self._head_fd)
            self._head_fd = -1
            self._head_fd = _open_regular(self._head_path, os.O_RDWR)
            self._note("the head was removed while the server wrote it")

    def _note(self, problem: str) -> None:
        if problem not in self._found:
            self._found.append(problem)
            _logger.error("%s: %s", self._path, problem)

    def _open_head(self, new_key: bool) -> Head | None:
        self._head_fd = _open_regular(self._head_path, os.O_RDWR)
        data = os.read(self._head_fd, 2 * HEAD_BYTES)
        if not data and not self._size:
            return None
        if not data:
            self._note("there is a log, but no head: whether its end was cut off is not known")
            return None
        if new_key:
            self._note("there is a head, but its key was gone")
            return None
        try:
            return Head.decode(data, self._key)
        except HeadError as error:
            self._note(f"the head cannot be trusted: {error}")
            return None

    def _find_end(self, head: Head | None) -> dict[str, object]:
        """Find the last line of the chain: in the file, or, where the file ends before it, by the head.

        Returns:
            What the first record of this opening says of it.
        """
        if head is not None and (self._size == 0 or head.size <= self._size):
            last, end = self._follow(head.line, 0 if self._size == 0 else head.size)
        else:
            last, end = self._last_line()
            if head is not None:
                cut = head.line.seq - last.seq
                self._note(f"the end was cut off: {cut} lines, up to line {head.line.seq}, are missing")
                last = head.line
        self._last = last
        fragment = self._read(end, self._size)
        self._size -= len(fragment)
        if end == 0:
            self._write_head()  # the head's size is that of this file from now on
        self._size += len(fragment)
        self._unended = bool(fragment) or self._ends_within_a_line(end)
        return {"file": "new" if end == 0 else "continued", **(torn(fragment) if fragment else {})}

    def _follow(self, last: ChainedLine, offset: int) -> tuple[ChainedLine, int]:
        """The last line that continues the chain from ``last`` at ``offset`` on, and where it ends."""
        for end, line in self._lines(offset):
            record = parse_line(line)
            if record is None or not last.leads_to(record):
                break
            last, offset = ChainedLine(record["seq"], line_hash(line)), end
        return last, offset

    def _last_line(self) -> tuple[ChainedLine, int]:
        """The last line that is one, whatever stands before it, and where it ends."""
        last, offset = ChainedLine(), 0
        for end, line in self._lines(0):
            if (record := parse_line(line)) is not None:
                last, offset = ChainedLine(record["seq"], line_hash(line)), end
        return last, offset

    def _lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Every line, without its line feed, which the last one may lack, and the offset behind it."""
        with open(os.dup(self._fd), "rb") as file:  # noqa: PTH123
            file.seek(offset)
            for line in file:
                offset += len(line)
                yield offset, line.removesuffix(b"\n")

    def _ends_within_a_line(self, size: int) -> bool:
        return size > 0 and self._read(size - 1, size) != b"\n"

    def _read(self, start: int, end: int) -> bytes:
        with open(os.dup(self._fd), "rb") as file:  # noqa: PTH123
            file.seek(start)
            return file.read(end - start)

    def _write_head(self) -> None:
        os.lseek(self._head_fd, 0, os.SEEK_SET)
        data = Head(self._last, self._size).encode(self._key)
        if os.write(self._head_fd, data) != len(data):
            raise OSError("the head could not be written to its end")


def _open_regular(path: Path, flags: int) -> int:
    fd = os.open(path, flags | _FLAGS, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path}: expected a regular file")
    return fd


def _read_key(path: Path) -> tuple[bytes, bool]:
    """The key, and whether it was made just now."""
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_EXCL | _FLAGS, 0o600)
        try:
            os.write(fd, f"{secrets.token_hex(_KEY_BYTES)}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        _sync_directory(path.parent)
        return read_key(path), True
    return read_key(path), False


def read_key(path: Path) -> bytes:
    """The key in a file. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | (_FLAGS & ~os.O_CREAT))
    try:
        status = os.fstat(fd)
        if sys.platform != "win32" and status.st_mode & 0o037:
            raise PermissionError(f"{path}: others may read the key, or the group may write it (chmod 600)")
        key = os.read(fd, 4096).strip()
    finally:
        os.close(fd)
    if len(key) < _KEY_BYTES:
        raise OSError(f"{path}: expected a key of at least {_KEY_BYTES} characters")
    return key


def _lock(fd: int, path: Path) -> None:
    if sys.platform == "win32":
        return  # the state directory's lock has to do
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AuditFileInUseError(f"{path}: another server writes this audit log") from None


def _sync(fd: int) -> None:
    if sys.platform == "linux":
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def _sync_directory(path: Path) -> None:
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
