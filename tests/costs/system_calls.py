"""System calls of running processes, noted by strace."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_DEADLINE = 20.0
_LINE = re.compile(r"(?:\d+ +)?(\d{9,}\.\d+) (\w+)\(")
# How often a process waits, and for how long, is decided by whatever else the machine has to do.
_WAITS = "futex,epoll_wait,epoll_pwait,poll,ppoll,select,pselect6,sched_yield,clock_nanosleep,restart_syscall"
_SYNCS = ("fsync", "fdatasync")


class CannotTraceError(Exception):
    """There is no strace here, or it may not look at other processes."""


@dataclass
class Trace:
    """What was called, and when, in seconds since the epoch; complete when the trace has ended."""

    calls: list[float] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)

    def read(self, path: Path) -> None:
        """Take in what strace has written."""
        with path.open(encoding="utf-8", errors="replace") as lines:
            found = [(float(match[1]), match[2]) for match in map(_LINE.match, lines) if match]
        found.sort()
        self.calls = [time for time, _ in found]
        self.syncs = [time for time, name in found if name in _SYNCS]


def count_between(times: Sequence[float], start: float, end: float) -> int:
    """How many of sorted ``times`` are between both."""
    return bisect_left(times, end) - bisect_left(times, start)


@contextmanager
def tracing(processes: Sequence[psutil.Process], folder: Path) -> Iterator[Trace]:
    """Trace meanwhile all system calls but those that wait.

    What the processes start is not looked at: it depends on the system's shell and C library.

    Raises:
        CannotTraceError: why it cannot be done.
    """
    program = shutil.which("strace")
    if program is None:
        raise CannotTraceError("strace is not installed")
    output = folder / f"strace-{processes[0].pid}"
    threads = [str(thread.id) for process in processes for thread in process.threads()]
    command = [program, "-ttt", "-s", "0", "-e", f"trace=!{_WAITS}", "-o", str(output)]
    for thread in threads:
        command += ["-p", thread]
    strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert strace.stderr is not None
    trace = Trace()
    try:
        said = b""
        while said.count(b" attached\n") < len(threads):
            ready, _, _ = select.select([strace.stderr], [], [], _DEADLINE)
            more = os.read(strace.stderr.fileno(), 4096) if ready else b""
            if not more:
                raise CannotTraceError(said.decode(errors="replace").strip() or "strace attaches to nothing")
            said += more
        yield trace
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(_DEADLINE)
        strace.stderr.close()
    trace.read(output)
