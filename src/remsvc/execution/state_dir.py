"""The state directory: one server at a time, and nobody else's business."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from remsvc.errors import ExecutionError


class StateDirError(ExecutionError):
    """The state directory cannot be used."""


class StateDirInUseError(StateDirError):
    """Another server uses it."""


def lock_state_dir(path: Path) -> int:
    """Make the directory if need be, check that only its owner can write to it, and lock it.

    Returns:
        A descriptor; the lock lasts until it is closed.

    Raises:
        StateDirError: it cannot be made or is not safe.
        StateDirInUseError: another server holds the lock.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_others_link(path)
        status = path.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise StateDirError(
                f"{path}: expected a directory that belongs to the server's user, and that no one else may "
                "write to (chmod 700)"
            )
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateDirError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StateDirInUseError(f"{path}: another server uses this state directory") from None
    return lock


def _refuse_others_link(path: Path) -> None:
    """Somebody else's link could point to any directory of ours, now or the next time."""
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise StateDirError(f"{path}: expected a directory, not a link that somebody else has made")
