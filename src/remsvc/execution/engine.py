"""The narrow interface between the server and the processes it runs.

One engine serves a whole server. On POSIX it is :mod:`remsvc.execution.posix` (a supervisor
process owns the commands), on Windows :mod:`remsvc.execution.windows` (job objects).
:func:`create_engine` picks it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from remsvc.errors import ExecutionError
from remsvc.execution.supervisor.cgroup import GroupParent
from remsvc.execution.supervisor.process_limits import NO_LIMITS, ProcessLimits

MARK = "REMSVC_COMMAND_ID"
"""The environment variable that tells a command's processes from another's."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The POSIX user a process runs as.

    Attributes:
        uid: user id.
        gid: primary group id.
        groups: all supplementary group ids, the primary one included.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run.

    Attributes:
        argv: program (absolute path, or a name looked up in ``env["PATH"]``) and its arguments.
        env: the whole environment of the process; nothing is inherited.
        cwd: the working directory; where the process may not enter it, it starts in the root
            directory.
        credentials: the user to become, or None to stay the server's own. POSIX only.
        time_limit: seconds until the process tree is killed; None for no limit.
        output_limit: bytes kept of each output stream; the rest is read and dropped.
        caller: whose it is: starts that take long are counted, and wait, by caller.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    credentials: Credentials | None = None
    time_limit: float | None = None
    output_limit: int = 262_144
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """One output stream of an ended process.

    Attributes:
        head: its first bytes, at most the spec's ``output_limit`` of them.
        total: how many bytes the process wrote altogether.
    """

    head: bytes = b""
    total: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended.

    Attributes:
        exit_code: its exit code, or None where a signal ended it.
        signal: the number of the signal that ended it, else None.
        timed_out: whether its time limit ended it.
        stdout, stderr: what it wrote until it ended. A process left behind in the background
            that still holds an output open adds to it only within the drain grace
            (:data:`DRAIN_GRACE`).
    """

    exit_code: int | None
    signal: int | None = None
    timed_out: bool = False
    stdout: Output = field(default_factory=Output)
    stderr: Output = field(default_factory=Output)


DRAIN_GRACE = 0.1
"""Seconds that an ended command's output is still read while another process holds it open."""

OUTPUT_WAIT = 5.0
"""Seconds that it is read at most while others still pass it on, as in ``exec > >(tee log)``."""


class WithdrawnError(ExecutionError):
    """A process was withdrawn before it started."""


class Process(Protocol):
    """A process that has started, is starting, or waits for another one to end.

    Whoever started it awaits :meth:`wait` or calls :meth:`end`.
    """

    @property
    def withdrawn(self) -> bool:
        """Whether it waited for another one, and was taken back: it never started."""
        ...

    async def wait(self) -> Outcome:
        """Wait until the process has ended and is reaped. May be called again after a cancelled wait.

        Raises:
            StartError: it could not be started.
            WithdrawnError: it did not start, and will not.
            ExecutionError: the machinery failed; its outcome is not known.
        """
        ...

    def end(self) -> None:
        """Kill the process and all its descendants now. :meth:`wait` then returns. Idempotent.

        One that waits for another one is withdrawn, and so is one that waits for this one.
        """
        ...

    def withdraw(self) -> None:
        """Do not start it, if it still waits for another one; else it goes on. Idempotent."""
        ...


class Engine(Protocol):
    """Starts processes, and on :meth:`close` ends all those still running.

    Attributes:
        lanes: whether a process can wait, ready to start, for another one to end.
        trees: by what the processes of commands are told apart; empty where nothing says so.
    """

    @property
    def lanes(self) -> bool: ...
    @property
    def trees(self) -> str: ...

    async def open(self) -> None:
        """Get ready. Raises :class:`~remsvc.errors.ExecutionError` where that fails."""
        ...

    def start(self, spec: ProcessSpec, after: Process | None = None) -> Process:
        """Start a process; where that fails, its :meth:`Process.wait` raises ``StartError``.

        Args:
            after: start it the moment this one, which was started before, has ended; only where the
                engine has :attr:`lanes`, and one at most after each.
        """
        ...

    async def close(self) -> None:
        """End every process, reap it and free everything. Idempotent."""
        ...


def create_engine(
    limits: ProcessLimits = NO_LIMITS, groups: GroupParent | None = None, output_wait: float = OUTPUT_WAIT
) -> Engine:
    """The engine for this platform.

    Args:
        limits: what each process is held to. This and the rest is for POSIX alone.
        groups: where control groups for processes can be had; None for nowhere.
        output_wait: seconds that it is waited for output that others pass on, when its process has ended.
    """
    if sys.platform == "win32":
        from remsvc.execution.windows import WindowsEngine

        return WindowsEngine()
    from remsvc.execution.posix import PosixEngine

    return PosixEngine(groups=groups, limits=limits, output_wait=output_wait)
