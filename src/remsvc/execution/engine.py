"""What the server needs of whatever runs its processes: start one, wait for it, end it.

One engine serves a whole server; :mod:`remsvc.execution.engine_choice` says which one. On POSIX it is
:mod:`remsvc.execution.posix` (a supervisor process owns the commands), on Windows
:mod:`remsvc.execution.windows` (job objects).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from remsvc.errors import ExecutionError
from remsvc.execution.supervisor.protocol import Credentials


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
class ProcessEnd:
    """How a process ended.

    Attributes:
        exit_code: its exit code, or None where a signal ended it.
        signal: the number of the signal that ended it, else None.
        timed_out: whether its time limit ended it.
        stdout, stderr: what it wrote until it ended. A process left behind in the background
            that still holds an output open adds to it only within the drain grace
            (:data:`~remsvc.execution.supervisor.protocol.DRAIN_GRACE`).
    """

    exit_code: int | None
    signal: int | None = None
    timed_out: bool = False
    stdout: Output = field(default_factory=Output)
    stderr: Output = field(default_factory=Output)


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

    async def wait(self) -> ProcessEnd:
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
        can_start_after: whether a process can wait, ready to start, for another one to end.
        trees: by what the processes of commands are told apart; empty where nothing says so.
    """

    @property
    def can_start_after(self) -> bool: ...
    @property
    def trees(self) -> str: ...

    async def open(self) -> None:
        """Get ready. Raises :class:`~remsvc.errors.ExecutionError` where that fails."""
        ...

    def start(self, spec: ProcessSpec, after: Process | None = None) -> Process:
        """Start a process; where that fails, its :meth:`Process.wait` raises ``StartError``.

        Args:
            after: start it the moment this one, which was started before, has ended; only where the
                engine has :attr:`can_start_after`, and one at most after each.
        """
        ...

    async def close(self) -> None:
        """End every process, reap it and free everything. Idempotent."""
        ...
