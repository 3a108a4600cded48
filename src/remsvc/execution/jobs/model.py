"""What a durable job is: plain data, shared by the journal, the engine and the service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from sys import getsizeof
from typing import Any

from remsvc.job_state import JobState

compact_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""Equal values give equal texts, in all versions: digests and searches rest on it."""

_ENTRY_BYTES = 100  # what a map takes for an entry beside its texts


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run. Exactly one of ``shell_command`` and ``argv`` is set.

    Attributes:
        shell_command: text for a shell.
        argv: a program and its arguments.
        powershell: PowerShell reads ``shell_command``, not the system's shell.
        user: the user to run as; empty for the server's own.
        cwd: absolute path; empty for the user's home directory.
        env: additions to the clean environment.
        time_limit: seconds; None for none.
        kill_grace: seconds between TERM and KILL; None counts as none.
        output_limit: bytes kept of each output.
        labels: the caller's.
        source: where it comes from, for the log.
        lease: seconds that it may go unwatched; None for ever.
    """

    shell_command: str | None = None
    argv: tuple[str, ...] = ()
    powershell: bool = False
    user: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    time_limit: float | None = None
    kill_grace: float | None = None
    output_limit: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    lease: float | None = None

    @property
    def text(self) -> str:
        """What policy sees and logs show: the shell text, or the arguments with blanks between."""
        return self.shell_command if self.shell_command is not None else " ".join(self.argv)

    @property
    def text_bytes(self) -> int:
        """Of memory that its texts take, whoever has chosen them."""
        texts = (self.shell_command or "", *self.argv, self.user, self.cwd, self.source)
        maps = (self.env, self.labels)
        return sum(map(getsizeof, texts)) + sum(
            getsizeof(key) + getsizeof(value) + _ENTRY_BYTES for each in maps for key, value in each.items()
        )

    def to_json(self) -> str:
        """As the journal keeps it; equal specs give equal texts."""
        return compact_json(_fields(self))

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """What :meth:`to_json` made, also by an earlier version."""
        values = json.loads(text)
        return cls(**{**values, "argv": tuple(values["argv"])})


_NAMES = tuple(field.name for field in fields(JobSpec))


def _fields(spec: JobSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in _NAMES}


_DEFAULTS = _fields(JobSpec())


def content_digest(spec: JobSpec, stdin: bytes) -> str:
    """Tells whether two requests ask for the same thing.

    What is at its default does not count, so that a field that a later version adds changes nothing.
    """
    content = {name: value for name, value in _fields(spec).items() if value != _DEFAULTS[name]}
    text = compact_json(content)
    return hashlib.sha256(text.encode() + b"\0" + stdin).hexdigest()


@dataclass(frozen=True, slots=True)
class OutputSize:
    """How much there is of an output: bytes written, and which of them were dropped (from, up to)."""

    total: int = 0
    gap_start: int = 0
    gap_end: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is at one moment. Times are seconds since the epoch.

    Attributes:
        seq: rises with each job of this server; orders the list.
        id: unique on this server.
        digest: of its content, see :func:`content_digest`.
        exit_code: of the process, where it ended by itself.
        signal: the signal that ended it.
        reason: for a person.
        pid, pid_started: its first process, and when that was started.
        supervisor: the instance that it was given to.
    """

    id: str
    identity: str
    request_id: str
    digest: str
    spec: JobSpec
    created: float
    seq: int = 0
    state: JobState = JobState.QUEUED
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    stdout: OutputSize = OutputSize()
    stderr: OutputSize = OutputSize()
    pid: int | None = None
    pid_started: float | None = None
    supervisor: str = ""
    durable: bool = True
