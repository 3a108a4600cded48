"""The types of durable jobs for callers: what to run, how a job stands, and the events of a watch.

gRPC and protobuf are not loaded for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from remsvc.errors import InvalidCommandError
from remsvc.job_state import NO_OUTPUT
from remsvc.job_state import JobState as JobState
from remsvc.job_state import OutputSize as OutputSize
from remsvc.validation import (
    REQUEST_ID,
    SHELL_COMMAND,
    SOURCE,
    STANDARD_INPUT,
    USER,
    WORKING_DIRECTORY,
    check_arguments,
    check_labels,
    check_text,
    is_request_id,
)

MAX_STANDARD_INPUT = STANDARD_INPUT.most
"""Bytes of standard input that a job may carry."""

MOST_SECONDS = 315_576_000_000  # of a google.protobuf.Duration: 10,000 years


MOST_OUTPUT = 2**63 - 1
"""An ``output_limit`` that asks for as much as the server allows."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run. Exactly one of ``shell_command`` and ``argv`` is given.

    Attributes:
        shell_command: text for a shell.
        argv: a program and its arguments, without any shell.
        shell_type: which shell reads ``shell_command``: the system's own, or PowerShell.
        user: POSIX: the user to run as; empty: the server's own.
        working_directory: an absolute path; empty: the user's home directory.
        environment: variables, added to the clean environment that every command gets.
        standard_input: at most 1 MiB.
        time_limit: seconds it may run; None: the server's default.
        kill_grace: seconds between TERM and KILL when it is ended; None: the server's default.
        output_limit: bytes kept of each output, of its head and its tail; 0: the server's default. No
            server keeps more than its own maximum: :data:`MOST_OUTPUT` asks for that.
        labels: to find the job by: at most 32, keys of 1 to 63 characters, values of at most 255.
        source: where the job comes from, for the server's log.
        lease: seconds after which the job is ended if nobody watches it; None: it needs no watcher.
    """

    shell_command: str | None = None
    argv: tuple[str, ...] | None = None
    shell_type: Literal["native", "powershell"] = "native"
    user: str = ""
    working_directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    standard_input: bytes = b""
    time_limit: float | None = None
    kill_grace: float | None = None
    output_limit: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    lease: float | None = None

    def validate(self) -> None:
        """Check what can be checked anywhere, before anything is sent.

        Raises:
            InvalidCommandError: naming what is wrong, in one line.
        """
        self._check_program()
        for text in (USER, WORKING_DIRECTORY, SOURCE):
            check_text(text.field, getattr(self, text.field), text)
        if self.working_directory and not _is_absolute(self.working_directory):
            raise InvalidCommandError(
                f"working_directory must be an absolute path, not {self.working_directory!r}"
            )
        self._check_environment()
        check_arguments(self.argv or (), self.environment)
        self._check_labels()
        if not isinstance(self.standard_input, bytes):
            raise InvalidCommandError(
                f"standard_input must be bytes, not {type(self.standard_input).__name__}"
            )
        STANDARD_INPUT.check(self.standard_input)
        _check_seconds("time_limit", self.time_limit)
        _check_seconds("kill_grace", self.kill_grace, zero_allowed=True)
        _check_seconds("lease", self.lease)
        limit = self.output_limit
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**63:
            raise InvalidCommandError(f"output_limit must be a number of bytes from 0 on, not {limit!r}")

    def _check_program(self) -> None:
        if (self.shell_command is None) == (self.argv is None):
            raise InvalidCommandError("exactly one of shell_command and argv must be given")
        if self.shell_type not in ("native", "powershell"):
            raise InvalidCommandError(f"shell_type must be native or powershell, not {self.shell_type!r}")
        if self.argv is None:
            check_text("shell_command", self.shell_command, SHELL_COMMAND)
            if not str(self.shell_command).strip():
                raise InvalidCommandError("shell_command must not be blank")
            return
        if not isinstance(self.argv, tuple | list):
            raise InvalidCommandError(f"argv must be a tuple of strings, not {type(self.argv).__name__}")
        if self.shell_type != "native":
            raise InvalidCommandError("shell_type is for shell_command: argv is run without a shell")
        for number, argument in enumerate(self.argv):
            check_text(f"argv[{number}]", argument)
        if not self.argv or not self.argv[0]:
            raise InvalidCommandError("argv must begin with the name of a program")

    def _check_environment(self) -> None:
        for name, value in _items("environment", self.environment):
            check_text("the name of a variable in environment", name)
            if not name or "=" in name:
                raise InvalidCommandError(f"environment: {name!r} is not the name of a variable")
            check_text(f"environment variable {name}", value)

    def _check_labels(self) -> None:
        for key, value in _items("labels", self.labels):
            check_text("the key of a label", key)
            check_text(f"label {key}", value)
        check_labels(self.labels)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the server has it.

    Attributes:
        id: assigned by the server.
        request_id: chosen by whoever created it.
        identity: whose it is.
        spec: as created, defaults filled in, without its standard input.
        exit_code: None unless a process ended by itself or by a signal; 128+N for signal N.
        signal: the signal that ended it, or 0.
        reason: why it could not be started, who cancelled it, why it is lost.
        created_at, started_at, ended_at, expires_at: UTC; None for what has not happened. The last
            is when the server may forget it.
    """

    id: str
    request_id: str
    identity: str
    spec: JobSpec
    state: JobState
    exit_code: int | None = None
    signal: int = 0
    reason: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    stdout: OutputSize = NO_OUTPUT
    stderr: OutputSize = NO_OUTPUT

    @property
    def ended(self) -> bool:
        return self.state.ended


@dataclass(frozen=True, slots=True)
class StateChange:
    """The first event of a watch, one for each change of state, and the last event: the job has ended."""

    job: Job


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of one output of a job.

    Attributes:
        offset: where it begins, in bytes that the command has written.
        data: the bytes, unchanged; none in the last piece of an output whose end is missing.
        dropped: how many bytes before it the server does not have, so that nobody will see them.
        lost: whether the job's record says that they were kept; else they were dropped, such as because of
            the output limit.
    """

    stream: Literal["stdout", "stderr"]
    offset: int
    data: bytes
    dropped: int = 0
    lost: bool = False


WatchEvent = StateChange | OutputChunk


def check_request_id(request_id: str) -> None:
    """Check a request id.

    Raises:
        InvalidCommandError: it cannot be one.
    """
    if not isinstance(request_id, str) or not is_request_id(request_id):
        raise InvalidCommandError(
            f"request_id must have 1 to {REQUEST_ID.most} printable ASCII characters, not {request_id!r}"
        )


def _check_seconds(name: str, value: object, *, zero_allowed: bool = False) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidCommandError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not (0 < value <= MOST_SECONDS or (zero_allowed and value == 0)):
        raise InvalidCommandError(
            f"{name} must be a number of seconds {'from' if zero_allowed else 'above'} 0, not {value!r}"
        )


def _items(name: str, value: object) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        raise InvalidCommandError(f"{name} must be a mapping, not {type(value).__name__}")
    return list(value.items())


def _is_absolute(path: str) -> bool:
    """Whether a path is absolute on a server whose system is not known here."""
    from pathlib import PurePosixPath, PureWindowsPath  # slow to load

    return PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()
