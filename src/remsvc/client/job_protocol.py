"""Durable jobs on the wire, for the clients: methods, and messages from and to ``remsvc.client.jobs``.

A server may send anything. So every answer is bounded and checked here, before anybody relies on it:
:class:`ProtocolError` says what cannot be right. :class:`Listing` fetches a list page by page, and notices
one that never ends. Nothing here does input or output: both clients use it, each in its own way of waiting.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from remsvc.client.jobs import (
    MOST_SECONDS,
    Job,
    JobSpec,
    JobState,
    OutputChunk,
    OutputSize,
    StateChange,
    WatchEvent,
    check_request_id,
)
from remsvc.command import crc32hex
from remsvc.errors import InvalidCommandError, ProtocolError
from remsvc.printable import printable
from remsvc.validation import ID, PAGE_TOKEN, REASON, STATES, check_labels, check_unicode
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

_SERVICE = "/remsvc.jobs.v1.JobService/"
CREATE = _SERVICE + "CreateJob"
GET = _SERVICE + "GetJob"
LIST = _SERVICE + "ListJobs"
CANCEL = _SERVICE + "CancelJob"
WATCH = _SERVICE + "WatchJob"

_SHELLS: dict[str, Any] = {"native": jobs_pb2.SHELL_TYPE_NATIVE, "powershell": jobs_pb2.SHELL_TYPE_POWERSHELL}
_STATES: dict[JobState, Any] = {state: jobs_pb2.JobState.Value(state.value) for state in JobState}
_STATE_NAMES = {number: state for state, number in _STATES.items()}

# What servers send has a fraction of it. Made of empty fields, a message takes twenty times as much when
# it is read.
_MOST_BYTES, _MOST_LIST_BYTES = 8 * 1024 * 1024, 16 * 1024 * 1024
_MOST = 2**63 - 1
# A day from either end of what a datetime and every system's clock can say, in any time zone.
_EARLIEST = datetime(1970, 1, 2, tzinfo=timezone.utc)
_LATEST = datetime(9999, 12, 30, tzinfo=timezone.utc)


def encode_create(spec: JobSpec, request_id: str) -> bytes:
    """A ``CreateJobRequest`` with its hash. Raises :class:`InvalidCommandError`."""
    check_request_id(request_id)
    spec.validate()
    text = spec.shell_command if spec.argv is None else "\0".join(spec.argv)
    return _serialize(
        jobs_pb2.CreateJobRequest(request_id=request_id, spec=_spec_message(spec), hash=crc32hex(text or ""))
    )


def encode_get(job_id: str | None, request_id: str | None) -> bytes:
    """A ``GetJobRequest`` by one of the two. Raises :class:`InvalidCommandError`."""
    if (job_id is None) == (request_id is None):
        raise InvalidCommandError("exactly one of the job's id and its request_id must be given")
    if request_id is not None:
        check_request_id(request_id)
        return _serialize(jobs_pb2.GetJobRequest(request_id=request_id))
    return _serialize(jobs_pb2.GetJobRequest(id=_checked_id(job_id)))


def encode_list(
    states: Iterable[JobState],
    labels: Mapping[str, str] | None,
    created_after: datetime | None,
    page_size: int,
    page_token: str,
) -> bytes:
    """A ``ListJobsRequest``. Raises :class:`InvalidCommandError`."""
    if not 0 < page_size <= 1000:
        raise InvalidCommandError(f"page_size must be 1 to 1000, not {page_size}")
    names = [_STATES[JobState(state)] for state in states]
    STATES.check(names)
    PAGE_TOKEN.check(page_token)
    check_labels(labels or {})
    for key, value in (labels or {}).items():
        check_unicode("a label", key + value)
    request = jobs_pb2.ListJobsRequest(
        page_size=page_size,
        page_token=page_token,
        states=names,
        labels=labels or {},
    )
    if created_after is not None:
        if created_after.tzinfo is None:
            raise InvalidCommandError("created_after must have a time zone")
        request.created_after.FromDatetime(created_after)
    return _serialize(request)


def encode_cancel(job_id: str, reason: str, kill: bool) -> bytes:
    """A ``CancelJobRequest``. Raises :class:`InvalidCommandError`."""
    REASON.check(reason)
    check_unicode("reason", reason)
    return _serialize(jobs_pb2.CancelJobRequest(id=_checked_id(job_id), reason=reason, kill=kill))


def encode_watch(job_id: str, stdout_offset: int, stderr_offset: int) -> bytes:
    """A ``WatchJobRequest``. Raises :class:`InvalidCommandError`."""
    return _serialize(
        jobs_pb2.WatchJobRequest(
            id=_checked_id(job_id), stdout_offset=stdout_offset, stderr_offset=stderr_offset
        )
    )


def decode_job(answer: bytes) -> Job:
    """A ``Job``. Raises :class:`ProtocolError`."""
    return _job(_parse(jobs_pb2.Job, answer))


def decode_list(answer: bytes, page_size: int) -> tuple[list[Job], str]:
    """A ``ListJobsResponse``: its jobs and the token of the next page.

    Raises:
        ProtocolError: it cannot be read, or has more jobs than the ``page_size`` that was asked for.
    """
    message = _parse(jobs_pb2.ListJobsResponse, answer, _MOST_LIST_BYTES)
    if len(message.jobs) > page_size:
        raise ProtocolError(f"the server sent {len(message.jobs)} jobs, where at most {page_size} were due")
    return [_job(job) for job in message.jobs], message.next_page_token


def decode_watch(message: bytes) -> WatchEvent | None:
    """A ``WatchJobResponse``; None for an event of a later version. Raises :class:`ProtocolError`."""
    response = _parse(jobs_pb2.WatchJobResponse, message)
    kind = response.WhichOneof("event")
    if kind == "job":
        return StateChange(_job(response.job))
    if kind is None:
        return None
    chunk = getattr(response, kind)
    if not 0 <= chunk.offset <= _MOST - len(chunk.data):
        raise ProtocolError(f"the server sent {kind} from the impossible offset {chunk.offset} on")
    return OutputChunk(kind, chunk.offset, chunk.data)


def _spec_message(spec: JobSpec) -> Any:
    message = jobs_pb2.JobSpec(
        shell_type=_SHELLS[spec.shell_type],
        user=spec.user,
        working_directory=spec.working_directory,
        environment=dict(spec.environment),
        standard_input=spec.standard_input,
        time_limit=_duration(spec.time_limit),
        kill_grace=_duration(spec.kill_grace),
        output_limit=spec.output_limit,
        labels=dict(spec.labels),
        source=spec.source,
        lease=_duration(spec.lease),
    )
    if spec.argv is not None:
        message.argv.args.extend(spec.argv)
    elif spec.shell_command is not None:
        message.shell_command = spec.shell_command
    return message


def _spec(message: Any) -> JobSpec:
    powershell = message.shell_type == jobs_pb2.SHELL_TYPE_POWERSHELL
    program = message.WhichOneof("program")
    return JobSpec(
        shell_command=message.shell_command if program == "shell_command" else None,
        argv=tuple(message.argv.args) if program == "argv" else None,
        shell_type="powershell" if powershell else "native",
        user=message.user,
        working_directory=message.working_directory,
        environment=dict(message.environment),
        time_limit=_seconds(message, "time_limit"),
        kill_grace=_seconds(message, "kill_grace"),
        output_limit=message.output_limit,
        labels=dict(message.labels),
        source=message.source,
        lease=_seconds(message, "lease"),
    )


def _job(message: Any) -> Job:
    state = _STATE_NAMES.get(message.state)
    if state is None:
        raise ProtocolError(f"the server's job {printable(message.id)} has the unknown state {message.state}")
    return Job(
        id=message.id,
        request_id=message.request_id,
        identity=message.identity,
        spec=_spec(message.spec),
        state=state,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal,
        reason=message.reason,
        created_at=_time(message, "create_time"),
        started_at=_time(message, "start_time"),
        ended_at=_time(message, "end_time"),
        expires_at=_time(message, "expire_time"),
        stdout=_size(message.stdout, "stdout"),
        stderr=_size(message.stderr, "stderr"),
    )


def _size(message: Any, stream: str) -> OutputSize:
    size = OutputSize(message.total_bytes, message.dropped_bytes, message.head_bytes)
    if not (0 <= size.head <= size.total and 0 <= size.dropped <= size.total):
        raise ProtocolError(
            f"the server's answer cannot be read: {stream}: impossible sizes: "
            f"{size.total} bytes, of which {size.dropped} were dropped after the first {size.head}"
        )
    return size


def _time(message: Any, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    try:
        moment = timestamp.ToDatetime(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or not _EARLIEST <= moment <= _LATEST:
        raise ProtocolError(
            f"the server's answer cannot be read: {field}: {timestamp.seconds} s and {timestamp.nanos} ns "
            "after 1970 is no time of a job"
        )
    return moment


def _seconds(message: Any, field: str) -> float | None:
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    seconds = duration.seconds + duration.nanos / 1e9
    if not 0 <= seconds <= MOST_SECONDS:
        raise ProtocolError(f"the server's answer cannot be read: {field}: {seconds:g} s is no time")
    return seconds


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    whole, nanos = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos)


def _checked_id(job_id: str | None) -> str:
    if not job_id:
        raise InvalidCommandError("the job's id must not be empty")
    ID.check(job_id)
    check_unicode("the job's id", job_id)
    return job_id


def _serialize(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized


def _parse(kind: Any, answer: bytes, most: int = _MOST_BYTES) -> Any:
    if len(answer) > most:
        raise ProtocolError(
            f"the server's answer cannot be read: it has {len(answer)} bytes, more than {most}"
        )
    try:
        return kind.FromString(answer)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the server's answer cannot be read: {error}") from error


MOST_JOBS = 1_000_000
"""No server keeps so many jobs: a list that is longer has no end."""

_MOST_EMPTY_PAGES = 1_000
"""So many pages in a row may be empty: a server may search a part of its jobs, and find none in it."""


class Listing:
    """A list of jobs that is being fetched: which page to ask for next, and whether the list can be real.

    Args:
        states, labels, created_after, page_size: see ``list_jobs`` of the clients.

    Attributes:
        complete: whether the last page has come.
    """

    def __init__(
        self,
        states: Collection[JobState],
        labels: Mapping[str, str] | None,
        created_after: datetime | None,
        page_size: int,
    ) -> None:
        self._states = states
        self._labels = labels
        self._created_after = created_after
        self._page_size = page_size
        self._token = ""
        self._jobs = 0
        self._empty_pages = 0
        self.complete = False

    def request(self) -> bytes:
        """The request for the next page. Raises :class:`InvalidCommandError`."""
        return encode_list(self._states, self._labels, self._created_after, self._page_size, self._token)

    def receive(self, answer: bytes) -> list[Job]:
        """The jobs of a page.

        Raises:
            ProtocolError: it cannot be read, or the list has no end.
        """
        jobs, token = decode_list(answer, self._page_size)
        self.complete = not token
        self._jobs += len(jobs)
        self._empty_pages = 0 if jobs else self._empty_pages + 1
        try:
            PAGE_TOKEN.check(token)  # it could not be sent back
        except InvalidCommandError as error:
            raise ProtocolError(f"the server's {error}") from None
        if token and token == self._token:
            raise ProtocolError("the server's list of jobs does not end: a page leads to itself")
        if self._empty_pages > _MOST_EMPTY_PAGES:
            raise ProtocolError(
                f"the server's list of jobs does not end: {self._empty_pages} pages in a row are empty"
            )
        if self._jobs > MOST_JOBS:
            raise ProtocolError(f"the server's list of jobs does not end: there are over {MOST_JOBS}")
        self._token = token
        return jobs
