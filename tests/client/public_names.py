"""The client's public API: what other people's programs call, and must go on finding.

What is written here may only grow: a name, a parameter, a default or a type that goes away breaks programs
that we have never seen. ``mypy`` checks the types, ``test_public_names.py`` everything else.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from remsvc import errors
from remsvc.client import (
    AsyncClient,
    Client,
    CommandResult,
    ConnectionOptions,
    Job,
    JobSpec,
    JobState,
    OutputChunk,
    OutputSize,
    Pong,
    StateChange,
    Status,
)
from remsvc.command import Command, CommandType, crc32hex
from remsvc.errors import ServerError

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
WatchEvent: TypeAlias = StateChange | OutputChunk


class BlockingClientApi(Protocol):
    """What :class:`Client` promises."""

    @property
    def transport(self) -> str: ...

    def close(self) -> None: ...

    def connect(self, *, timeout: float | None = 30.0, metadata: Metadata = ()) -> None: ...

    def ping(
        self, data: bytes = b"", *, seq: int = 1, timeout: float | None = 10.0, metadata: Metadata = ()
    ) -> Pong: ...

    def status(self, *, timeout: float | None = 10.0, metadata: Metadata = ()) -> Status: ...

    def run(
        self, command: Command, *, tid: int = 1, timeout: float | None = None, metadata: Metadata = ()
    ) -> CommandResult: ...

    def run_many(
        self, commands: Sequence[Command], *, timeout: float | None = None, metadata: Metadata = ()
    ) -> Generator[CommandResult, None, None]: ...

    def create_job(
        self,
        spec: JobSpec,
        request_id: str,
        *,
        timeout: float = 30.0,
        repeat: bool = True,
        metadata: Metadata = (),
    ) -> Job: ...

    def get_job(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = 30.0,
        metadata: Metadata = (),
    ) -> Job: ...

    def list_jobs(
        self,
        *,
        states: Collection[JobState] = (),
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        page_size: int = 100,
        timeout: float | None = 30.0,
        metadata: Metadata = (),
    ) -> Generator[Job, None, None]: ...

    def cancel_job(
        self,
        job_id: str,
        *,
        reason: str = "",
        kill: bool = False,
        timeout: float = 30.0,
        repeat: bool = True,
        metadata: Metadata = (),
    ) -> Job: ...

    def watch_job(
        self,
        job_id: str,
        *,
        stdout_offset: int = 0,
        stderr_offset: int = 0,
        timeout: float | None = None,
        reconnect: bool = True,
        reconnect_timeout: float = 300.0,
        on_disconnect: Callable[[ServerError], None] | None = None,
        metadata: Metadata = (),
    ) -> Generator[WatchEvent, None, None]: ...


class AsyncClientApi(Protocol):
    """What :class:`AsyncClient` promises."""

    @property
    def transport(self) -> str: ...

    async def close(self) -> None: ...

    async def connect(self, *, timeout: float | None = 30.0, metadata: Metadata = ()) -> None: ...

    async def ping(
        self, data: bytes = b"", *, seq: int = 1, timeout: float | None = 10.0, metadata: Metadata = ()
    ) -> Pong: ...

    async def status(self, *, timeout: float | None = 10.0, metadata: Metadata = ()) -> Status: ...

    async def run(
        self, command: Command, *, tid: int = 1, timeout: float | None = None, metadata: Metadata = ()
    ) -> CommandResult: ...

    def run_many(
        self, commands: Sequence[Command], *, timeout: float | None = None, metadata: Metadata = ()
    ) -> AsyncGenerator[CommandResult, None]: ...

    async def create_job(
        self,
        spec: JobSpec,
        request_id: str,
        *,
        timeout: float = 30.0,
        repeat: bool = True,
        metadata: Metadata = (),
    ) -> Job: ...

    async def get_job(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = 30.0,
        metadata: Metadata = (),
    ) -> Job: ...

    def list_jobs(
        self,
        *,
        states: Collection[JobState] = (),
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        page_size: int = 100,
        timeout: float | None = 30.0,
        metadata: Metadata = (),
    ) -> AsyncGenerator[Job, None]: ...

    async def cancel_job(
        self,
        job_id: str,
        *,
        reason: str = "",
        kill: bool = False,
        timeout: float = 30.0,
        repeat: bool = True,
        metadata: Metadata = (),
    ) -> Job: ...

    def watch_job(
        self,
        job_id: str,
        *,
        stdout_offset: int = 0,
        stderr_offset: int = 0,
        timeout: float | None = None,
        reconnect: bool = True,
        reconnect_timeout: float = 300.0,
        on_disconnect: Callable[[ServerError], None] | None = None,
        metadata: Metadata = (),
    ) -> AsyncGenerator[WatchEvent, None]: ...


# Values: each is made from all that can be given, and each attribute has the type that was promised.


def clients() -> tuple[BlockingClientApi, AsyncClientApi]:
    options = ConnectionOptions(
        target="127.0.0.1:50051",
        tls=False,
        ca_cert=Path("ca.pem"),
        client_cert=Path("client.pem"),
        client_key=Path("client.key"),
        token="secret",
        keepalive=310.0,
        transport="auto",
        proxy=None,
    )
    return Client(options.for_jobs()), AsyncClient(ConnectionOptions("127.0.0.1"))


def command() -> tuple[str, int, str, str]:
    made = Command(cmd="true", cmdtyp=CommandType.SHELL, cmdusr="", src="")
    made.validate()
    assert crc32hex("true") == crc32hex(text="true")
    assert (CommandType.SHELL, CommandType.POWERSHELL) == (0, 1)
    return made.cmd, made.cmdtyp, made.cmdusr, made.src


def job_spec() -> JobSpec:
    spec = JobSpec(
        shell_command=None,
        argv=("true",),
        shell_type="native",
        user="",
        working_directory="/",
        environment={"A": "b"},
        standard_input=b"",
        time_limit=1.0,
        kill_grace=None,
        output_limit=0,
        labels={"a": "b"},
        source="",
        lease=None,
    )
    spec.validate()
    program: tuple[str | None, tuple[str, ...] | None] = (spec.shell_command, spec.argv)
    texts: tuple[str, str, str] = (spec.user, spec.working_directory, spec.source)
    seconds: tuple[float | None, ...] = (spec.time_limit, spec.kill_grace, spec.lease)
    mappings: tuple[Mapping[str, str], Mapping[str, str]] = (spec.environment, spec.labels)
    rest: tuple[Literal["native", "powershell"], bytes, int]
    rest = (spec.shell_type, spec.standard_input, spec.output_limit)
    assert all((program, texts, seconds, mappings, rest))
    return spec


def job() -> Job:
    size = OutputSize(total=3, dropped=1, head=1)
    numbers: tuple[int, int, int, int] = (size.total, size.dropped, size.head, size.kept_end)
    made = Job("id", "request", "identity", JobSpec("true"), JobState.QUEUED)
    texts: tuple[str, str, str, str] = (made.id, made.request_id, made.identity, made.reason)
    end: tuple[int | None, int, bool, JobState] = (made.exit_code, made.signal, made.ended, made.state)
    times: tuple[datetime | None, ...] = (made.created_at, made.started_at, made.ended_at, made.expires_at)
    outputs: tuple[OutputSize, OutputSize] = (made.stdout, made.stderr)
    assert all((numbers, texts, end, times, outputs))
    return made


def events() -> tuple[StateChange, OutputChunk]:
    change, chunk = StateChange(job=job()), OutputChunk("stdout", 0, b"x", 0, False)
    seen: tuple[Job, Literal["stdout", "stderr"], int, bytes, int, bool]
    seen = (change.job, chunk.stream, chunk.offset, chunk.data, chunk.dropped, chunk.lost)
    assert seen
    return change, chunk


def answers() -> None:
    pong, status = Pong(1, 2, b"", 0.1), Status(0, "state=OK", "http2", "cgroup")
    result = CommandResult(0, 1, "out", "err", "hsh", lossy=False)
    of_ping: tuple[int, int, bytes, float] = (pong.seq, pong.time, pong.data, pong.round_trip)
    of_status: tuple[int, str, str, str] = (status.rc, status.msg, status.transport, status.process_trees)
    of_run: tuple[int, int, str, str, str, bool]
    of_run = (result.rc, result.tid, result.out, result.err, result.hsh, result.lossy)
    assert all((of_ping, of_status, of_run))


STATES: tuple[JobState, ...] = (
    JobState.QUEUED,
    JobState.RUNNING,
    JobState.SUCCEEDED,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.TIMED_OUT,
    JobState.LOST,
)

SERVER_ERRORS: Mapping[str, type[ServerError]] = {
    "UNAVAILABLE": errors.UnavailableError,
    "UNAUTHENTICATED": errors.UnauthenticatedError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "INVALID_ARGUMENT": errors.InvalidArgumentError,
    "RESOURCE_EXHAUSTED": errors.ResourceExhaustedError,
    "NOT_FOUND": errors.NotFoundError,
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "CANCELLED": errors.CallCancelledError,
    "UNIMPLEMENTED": errors.UnimplementedError,
}

OTHER_ERRORS: tuple[type[errors.RemSvcError], ...] = (
    errors.InvalidCommandError,
    errors.ConfigurationError,
    errors.ProtocolError,
    errors.MissingResultsError,
    errors.ServeError,
    errors.TransportEndedError,
    errors.StartError,
    errors.ExecutionError,
)


def what_errors_tell(
    failure: ServerError,
    full: errors.ResourceExhaustedError,
    reused: errors.AlreadyExistsError,
    wrong: errors.ConfigurationError,
    missing: errors.MissingResultsError,
) -> tuple[str, str, str, bool, float | None, str | None, tuple[str, ...], tuple[int, ...]]:
    return (
        *(failure.code, failure.details, failure.target, failure.sent),
        *(full.retry_after, reused.job_id, wrong.problems, missing.tids),
    )
