"""Has glibc give freed memory back to the system: otherwise it keeps most of it after a flood of requests."""

from __future__ import annotations

import ctypes
import os
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_LARGE = 512 * 1024 + 1  # asyncio reads up to 256 KiB at a time: that much is to be had without asking
_MUCH = 1024 * 1024


def give_back_freed_memory() -> None:
    """Have large pieces of memory given back to the system once they are freed.

    To be called before any thread starts. Without this, glibc keeps freed pieces of up to 32 MiB for later,
    in a heap for each thread, and small pieces that live on scatter over them. So a server that was sent
    many large requests would stay up to 100 MiB larger (docs/decisions/0017-bounded-when-parsed.md). Where
    an administrator has set ``MALLOC_…`` variables, those decide instead.

    Source: mallopt(3).
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _MUCH)):
        mallopt(option, value)
