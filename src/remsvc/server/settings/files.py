"""Reads files that decide who may do what, if nobody else could have written them; tells when they change.

The check is that of sshd's ``StrictModes``: the file, every symbolic link on the way to it, and every
directory that holds one of these must belong to root or to this process's user, and others must not be able
to write to them. A directory with the sticky bit may be writable: only the owner of an entry can replace it
there.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

_MAX_BYTES = 16 * 1024 * 1024
_MAX_LINKS = 40  # as the kernel
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


Signature = tuple[int, ...]
"""What changes with a file's content, its owner or its mode; empty for a file that is not there."""


def signature_of(path: Path) -> Signature:
    """What tells whether a file may have changed, without reading it. Symbolic links are followed."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ()
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
    )


class UntrustedFileError(Exception):
    """The file cannot be read, or cannot be trusted; the text says why."""


@dataclass(frozen=True, slots=True)
class TrustedFile:
    """A file's content, and whether everybody may read it."""

    content: bytes
    readable_by_all: bool


def read_trusted_file(path: Path) -> TrustedFile:
    """Read ``path`` whole, following symbolic links that are to be trusted.

    Raises:
        UntrustedFileError: it cannot be read, is no regular file, is longer than 16 MiB, or somebody
            else than root and this process's user could have written it (not checked on Windows).
    """
    try:
        if os.name == "posix":
            _check_way(path)
        # Not blocking: a FIFO would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UntrustedFileError(f"expected a regular file: {path}")
            if os.name == "posix":
                _check_status(path, status)
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UntrustedFileError(f"cannot be read: {error.strerror}: {path}") from error
    if len(content) > _MAX_BYTES:
        raise UntrustedFileError(f"expected at most {_MAX_BYTES} bytes: {path}")
    return TrustedFile(content, os.name == "posix" and bool(status.st_mode & stat.S_IROTH))


def check_trusted(path: Path) -> None:
    """Check that only root and this process's user can write to ``path``, or put something else in its place.

    Args:
        path: a file or a directory.

    Raises:
        UntrustedFileError: somebody else could.
        OSError: it cannot be looked at.
    """
    _check_way(path)
    _check_status(path, path.stat())


def _is_trusted(user: int) -> bool:
    return sys.platform == "win32" or user in (0, os.geteuid())


def _check_way(path: Path) -> None:
    """Check each directory and link that leads to ``path``."""
    links = 0
    waiting = list(reversed(Path(os.path.abspath(path)).parts))  # noqa: PTH100  resolves nothing
    way = Path(waiting.pop())
    _check_directory(way)
    while waiting:
        part = waiting.pop()
        if part in (".", ".."):
            way = way if part == "." else way.parent
            continue
        entry = way / part
        status = entry.lstat()
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise UntrustedFileError(f"too many symbolic links: {path}")
            if not _is_trusted(status.st_uid):
                raise UntrustedFileError(f"expected no symbolic link of another user's: {entry}")
            target = entry.readlink()
            if target.is_absolute():
                way = Path(target.anchor)
            waiting.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
            continue
        if stat.S_ISDIR(status.st_mode):
            _check_directory(entry)
        way = entry


def _check_directory(directory: Path) -> None:
    status = directory.stat()
    sticky = status.st_mode & stat.S_ISVTX
    if not _is_trusted(status.st_uid):
        raise UntrustedFileError(f"expected a directory of root's or the server's user: {directory}")
    if status.st_mode & _WRITABLE_BY_OTHERS and not sticky:
        raise UntrustedFileError(f"expected a directory that others cannot write to: {directory}")


def _check_status(path: Path, status: os.stat_result) -> None:
    if not _is_trusted(status.st_uid):
        raise UntrustedFileError(f"expected a file of root's or the server's user: {path}")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise UntrustedFileError(f"expected a file that others cannot write to (chmod go-w): {path}")
