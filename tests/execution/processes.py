"""Looking at real processes."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

DEADLINE = 30.0
"""Seconds after which a test gives up waiting for something that must happen."""


def processes_with(argument: str) -> set[int]:
    """Pids of the processes, zombies left out, that have ``argument`` on their command line."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if argument.encode() in arguments and state != "Z":
                found.add(int(folder.name))
    return found


def supervisors_of(state_dir: Path) -> set[int]:
    """Pids of the supervisors of a state directory."""
    found = processes_with(str(state_dir)) & processes_with("-I")
    # A command that is just being started is still a copy of its supervisor.
    copies = set()
    for pid in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            copies |= children(pid)
    return found - copies


def own_descriptors() -> int:
    """How many descriptors this process has open; none that only waits to be collected."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def children(pid: int) -> set[int]:
    """Pids of a process's children, zombies included."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {DEADLINE:g} s: {what}"
        await asyncio.sleep(0.02)
