"""What a durable job is, as plain data: what it runs, how it stands and how it ended."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from sys import getsizeof
from typing import Any

from remsvc.errors import RemSvcError
from remsvc.execution.supervisor.records import CANCELLED, TIME_LIMIT, ExitRecord, LostOutput
from remsvc.job_state import NO_OUTPUT, JobState, OutputSize


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How much the jobs of a server may take.

    Attributes:
        max_running, max_queued: how many jobs may run and wait at one time.
        max_text_bytes: how much memory the commands, environments and labels of all jobs that have not
            ended may take. Those of one identity may take three quarters of it.
        retention_seconds: how long after its end a job is kept.
        retention_count: how many ended jobs are kept.
        retention_bytes: how much disk their output and what they ran may take.
        collect_seconds: how often the server looks for jobs to forget.
    """

    max_running: int = 256
    max_queued: int = 10_000
    max_text_bytes: int = 32 * 1024**2
    retention_seconds: float = 7 * 86_400
    retention_count: int = 10_000
    retention_bytes: int = 10 * 1024**3
    collect_seconds: float = 30.0


class RequestReusedError(RemSvcError):
    """The caller has used the request id before, for a job with other content.

    Attributes:
        job_id: the job that was made then.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"the request id was used for job {job_id}, with other content")


class QueueFullError(RemSvcError):
    """There is no room for one more job: too many wait, or they take too much memory."""


class TooManySearchesError(RemSvcError):
    """An identity has as many searches for jobs under way as it may have."""


class WatchStoppedError(RemSvcError):
    """The watch ends before its job does: the server is shutting down."""


class JobForgottenError(RemSvcError):
    """The job ended so long ago that the server does not keep it any more."""


def ended_job(job: JobRecord, record: ExitRecord) -> JobRecord:
    """The record of a job that has ended as its supervisor's exit record says.

    A cancelled job has its reason already: why it was cancelled. In any state, the reason also says how
    much output could not be stored.
    """
    code, signal = record.exit_code, record.signal
    state, reason = JobState.FAILED, ""
    if record.garbled or (record.cause == TIME_LIMIT and job.content.time_limit is None):
        state, reason = JobState.LOST, "what its supervisor says of its end is not understood"
    elif record.error is not None:
        reason = record.error
    elif record.cause == TIME_LIMIT:
        state, reason = JobState.TIMED_OUT, f"its time limit of {job.content.time_limit:g} s was reached"
    elif record.cause == CANCELLED:
        state, reason = JobState.CANCELLED, job.reason or "cancelled"
    elif code == 0:
        state = JobState.SUCCEEDED
    elif signal:
        reason = f"ended by signal {signal}"
    sizes = [
        output_size(total, gap.start, gap.end) for total, gap in zip(record.totals, record.gaps, strict=True)
    ]
    lost = loss_of_output(record.lost) if record.lost is not None else ""
    return dataclasses.replace(
        job,
        state=state,
        reason=_text("; ".join(filter(None, (reason, record.left, lost)))),
        exit_code=128 + signal if signal else code,
        signal=signal,
        started=record.started if record.started is not None else job.started,
        ended=record.ended or time.time(),
        stdout=sizes[0],
        stderr=sizes[1],
    )


def loss_of_output(lost: LostOutput) -> str:
    """What of the output could not be stored, for a person."""
    streams = ((lost.stdout, "standard output"), (lost.stderr, "standard error"))
    parts = [f"{size} bytes of {name}" for size, name in streams if size]
    return f"{' and '.join(parts)} could not be stored: {lost.why or 'an error'}" if parts else ""


def _text(reason: str) -> str:
    """The reason as valid Unicode: an error may name a file whose name is not."""
    return reason.encode(errors="replace").decode()


compact_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""Equal values give equal texts in all versions of the server, which digests and searches rely on."""

_ENTRY_BYTES = 100  # what a map takes for an entry beside its texts


@dataclass(frozen=True, slots=True)
class JobContent:
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
        """How many bytes of memory its texts take."""
        texts = (self.shell_command or "", *self.argv, self.user, self.cwd, self.source)
        maps = (self.env, self.labels)
        return sum(map(getsizeof, texts)) + sum(
            getsizeof(key) + getsizeof(value) + _ENTRY_BYTES for each in maps for key, value in each.items()
        )

    def to_json(self) -> str:
        """As the journal keeps it; equal contents give equal texts."""
        return compact_json(_fields(self))

    @classmethod
    def from_json(cls, text: str) -> JobContent:
        """What :meth:`to_json` made, also by an earlier version."""
        values = json.loads(text)
        return cls(**{**values, "argv": tuple(values["argv"])})


_NAMES = tuple(field.name for field in fields(JobContent))


def _fields(content: JobContent) -> dict[str, Any]:
    return {name: getattr(content, name) for name in _NAMES}


_DEFAULTS = _fields(JobContent())


def content_digest(content: JobContent, stdin: bytes) -> str:
    """The same for two requests that ask for the same thing, and different for any others.

    A field at its default does not count: so the digest stays the same when a later version adds fields.
    """
    chosen = {name: value for name, value in _fields(content).items() if value != _DEFAULTS[name]}
    text = compact_json(chosen)
    return hashlib.sha256(text.encode() + b"\0" + stdin).hexdigest()


def output_size(total: int, gap_start: int, gap_end: int) -> OutputSize:
    """The size of an output whose bytes from ``gap_start`` up to ``gap_end`` were dropped.

    This is how the journal and the supervisor tell a size. Without a gap, both ends are 0.
    """
    dropped = gap_end - gap_start
    return OutputSize(total, dropped, gap_start if dropped else total)


def gap_of(size: OutputSize) -> tuple[int, int]:
    """Where the bytes that were dropped begin and end; both 0 where none were."""
    return (size.head, size.head + size.dropped) if size.dropped else (0, 0)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it is at one moment. Times are seconds since the epoch.

    Attributes:
        id: unique on this server.
        identity: whose job it is.
        request_id: chosen by the caller who asked for it.
        digest: of its content, by :func:`content_digest`.
        content: what it runs.
        created: when it was claimed.
        seq: rises with each job of this server; lists are in its order.
        state: where it stands.
        exit_code: of its first process; 128+N where signal N ended that.
        signal: the signal that ended it, if one did.
        reason: for a person: why it could not start, was cancelled or is lost, or which output is missing.
        started, ended: when its first process started, and when all of it had ended.
        stdout, stderr: how much it has written.
        pid, pid_started: its first process, and when that was started.
        supervisor: the instance of the supervisor that it was claimed for; empty while it waits.
        durable: it is in the journal; a version-1 command is not.
    """

    id: str
    identity: str
    request_id: str
    digest: str
    content: JobContent
    created: float
    seq: int = 0
    state: JobState = JobState.QUEUED
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    stdout: OutputSize = NO_OUTPUT
    stderr: OutputSize = NO_OUTPUT
    pid: int | None = None
    pid_started: float | None = None
    supervisor: str = ""
    durable: bool = True
