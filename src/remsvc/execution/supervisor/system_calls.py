"""System calls that Python has no function for: each raises ``OSError`` where the kernel refuses. Linux."""

from __future__ import annotations

import ctypes
import os
from typing import Any

# Not on Windows, where the server imports this with what it knows of control groups, and calls none of it.
_libc: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


def system_call(number: int, *arguments: object) -> int:
    """Make the system call with this number, and return what it returns.

    Args:
        arguments: as ctypes takes them: numbers, bytes, None for no pointer, references to structures.
    """
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _refused()
    return result


def prctl(option: int, argument: int = 0) -> None:
    """Change something about this process: prctl(2)."""
    if _libc.prctl(option, argument, 0, 0, 0) < 0:
        raise _refused()


def fallocate(file: int, mode: int, offset: int, length: int) -> None:
    """Change which part of a file takes room: fallocate(2)."""
    if _libc.fallocate(file, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) < 0:
        raise _refused()


def _refused() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
