"""What both searches share: how long they go on, that memory does not grow meanwhile, what they say."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
"""What was found, and is played again by the tests."""

_LOOK_EVERY = 1_000
_WARM_AFTER = 4
_SAY_SECONDS = 60.0
_GROWTH_BYTES = 64 << 20
_GROWTH_BLOCKS = 50_000


class Finding(Exception):  # noqa: N818
    """Something that may never happen."""


def parse_arguments(description: str | None) -> argparse.Namespace:
    """``--seconds``, ``--seed``, ``--corpus``, ``--replay``."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to search (default: 60)")
    parser.add_argument("--seed", type=int, help="for the same search again (default: another one each time)")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where a finding is kept")
    parser.add_argument("--replay", type=Path, help="play one that was kept, instead of a search")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(1 << 32)
    return arguments


class Progress:
    """A search's clock and memory.

    Args:
        seconds: how long it is to go on.
        seed: of the search, for what is said.
    """

    def __init__(self, seconds: float, seed: int) -> None:
        self._seconds = seconds
        self._seed = seed
        self._started = self._said = time.monotonic()
        self._first: tuple[int, int] | None = None
        self.sessions = 0

    def goes_on(self) -> bool:
        """Whether there is to be one more session. Raises :class:`Finding` where memory grows."""
        now = time.monotonic()
        if self.sessions and self.sessions % _LOOK_EVERY == 0:
            memory = _memory()
            if self.sessions == _WARM_AFTER * _LOOK_EVERY:
                self._first = memory
            if self._first is not None:
                self._compare(self._first, memory)
        if now - self._said > _SAY_SECONDS:
            self._said = now
            self.say()
        if now - self._started > self._seconds:
            return False
        self.sessions += 1
        return True

    def say(self) -> None:
        """Say how far the search is."""
        seconds = time.monotonic() - self._started
        now, blocks = _memory()
        print(
            f"seed {self._seed}: {self.sessions:,} sessions in {seconds:,.0f} s, "
            f"{self.sessions / seconds:,.0f} a second; memory {now >> 10:,} KiB, {blocks:,} blocks"
            + (f", first {self._first[0] >> 10:,} KiB, {self._first[1]:,} blocks" if self._first else ""),
            flush=True,
        )

    def _compare(self, first: tuple[int, int], now: tuple[int, int]) -> None:
        if now[0] - first[0] > _GROWTH_BYTES or now[1] - first[1] > _GROWTH_BLOCKS:
            raise Finding(f"memory grows: {first} bytes and blocks, after {self.sessions} sessions {now}")


def _memory() -> tuple[int, int]:
    """Bytes in use, exactly where the address sanitizer counts them, else those resident; Python's blocks."""
    gc.collect()
    blocks = sys.getallocatedblocks()
    program = ctypes.CDLL(None)
    try:
        count = program.__sanitizer_get_current_allocated_bytes
    except AttributeError:
        with suppress(AttributeError):  # glibc's: what was freed stays resident otherwise, while it likes
            program.malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE"), blocks
    count.restype = ctypes.c_size_t
    return int(count()), blocks
