"""Translates between the messages of ``remsvc.jobs.v1`` and the server's own types of jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from remsvc.errors import InvalidCommandError
from remsvc.execution.jobs.files import Piece
from remsvc.execution.jobs.model import JobContent, JobRecord
from remsvc.execution.jobs.search import Filter
from remsvc.execution.supervisor.protocol import MARK
from remsvc.job_state import JobState, OutputSize
from remsvc.server.jobs.config import JobConfig
from remsvc.validation import (
    PAGE_TOKEN,
    REQUEST_ID,
    SHELL_COMMAND,
    SOURCE,
    STANDARD_INPUT,
    STATES,
    USER,
    WORKING_DIRECTORY,
    check_arguments,
    check_labels,
    is_request_id,
)
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

MOST_BESIDE_DATA = 32
"""Bytes that a chunk takes beside those of the output, at most."""
_BYTES = 2  # the wire type of bytes and of messages


def _tag(message: type, name: str) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[name].number  # type: ignore[attr-defined]
    return _varint(number << 3 | _BYTES)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


_STREAMS = {name: _tag(jobs_pb2.WatchJobResponse, name) for name in ("stdout", "stderr")}
_DATA = _tag(jobs_pb2.Chunk, "data")


def chunk_bytes(piece: Piece) -> bytes:
    """The serialized ``WatchJobResponse`` with this piece, which is not empty."""
    chunk = jobs_pb2.Chunk(offset=piece.offset).SerializeToString() + _DATA + _varint(len(piece.data))
    length = _varint(len(chunk) + len(piece.data))
    return b"".join((_STREAMS[piece.stream], length, chunk, piece.data))


_SHELLS = (
    jobs_pb2.SHELL_TYPE_UNSPECIFIED,
    jobs_pb2.SHELL_TYPE_NATIVE,
    jobs_pb2.SHELL_TYPE_POWERSHELL,
)


def read_request_id(text: str) -> str:
    """A request id. Raises :class:`InvalidCommandError`."""
    if not is_request_id(text):
        raise InvalidCommandError(f"request_id: expected 1 to {REQUEST_ID.most} printable ASCII characters")
    return text


def read_content(message: jobs_pb2.JobSpec) -> JobContent:
    """A job as it was asked for: what is absent is left at its default.

    Raises:
        InvalidCommandError: naming the field, and what was expected.
    """
    check_arguments(message.argv.args, message.environment)
    _check_text(message)
    for name, value in message.environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidCommandError(f"environment: {name!r} is not the name of a variable")
        if name == MARK:
            raise InvalidCommandError(f"environment: {MARK} is set by the server")
    STANDARD_INPUT.check(message.standard_input)
    check_labels(message.labels)
    if message.output_limit < 0:
        raise InvalidCommandError("output_limit: must not be negative")
    return JobContent(
        shell_command=message.shell_command if message.WhichOneof("program") == "shell_command" else None,
        argv=tuple(message.argv.args),
        powershell=message.shell_type == jobs_pb2.SHELL_TYPE_POWERSHELL,
        user=message.user,
        cwd=message.working_directory,
        env=dict(message.environment),
        time_limit=_seconds(message, "time_limit", zero=False),
        kill_grace=_seconds(message, "kill_grace", zero=True),
        output_limit=message.output_limit,
        labels=dict(message.labels),
        source=message.source,
        lease=_seconds(message, "lease", zero=False),
    )


def with_defaults(content: JobContent, config: JobConfig) -> JobContent:
    """The job with the server's defaults filled in."""
    return replace(
        content,
        time_limit=content.time_limit if content.time_limit is not None else config.time_limit,
        kill_grace=content.kill_grace if content.kill_grace is not None else config.kill_grace,
        output_limit=min(content.output_limit or config.output_limit, config.max_output_limit),
    )


def _check_text(message: jobs_pb2.JobSpec) -> None:
    program = message.WhichOneof("program")
    if program is None:
        raise InvalidCommandError("spec: expected shell_command or argv")
    if program == "shell_command" and not message.shell_command.strip():
        raise InvalidCommandError("shell_command: must not be blank")
    if program == "argv" and not (message.argv.args and message.argv.args[0]):
        raise InvalidCommandError("argv: expected a program")
    for limit in (SHELL_COMMAND, USER, WORKING_DIRECTORY, SOURCE):
        text = getattr(message, limit.field)
        limit.check(text)
        if "\0" in text:
            raise InvalidCommandError(f"{limit.field}: must not contain a NUL character")
    if any("\0" in argument for argument in message.argv.args):
        raise InvalidCommandError("argv: must not contain a NUL character")
    if message.shell_type not in _SHELLS:
        raise InvalidCommandError(f"shell_type: {message.shell_type} is not known")
    if message.working_directory and not message.working_directory.startswith("/"):
        raise InvalidCommandError(
            f"working_directory: {message.working_directory!r}: expected an absolute path"
        )


def _seconds(message: jobs_pb2.JobSpec, name: str, *, zero: bool) -> float | None:
    if not message.HasField(name):
        return None
    duration: Duration = getattr(message, name)
    seconds = duration.seconds + duration.nanos / 1e9
    if not (seconds > 0 or (zero and seconds == 0)) or seconds > 2**31:
        raise InvalidCommandError(f"{name}: expected a duration above 0, not {seconds:g} s")
    return seconds


def read_filter(request: jobs_pb2.ListJobsRequest, identity: str | None) -> Filter:
    """Which jobs are asked for; ``identity``: whose, None for everyone's.

    Raises:
        InvalidCommandError: naming the field, and what was expected.
    """
    if request.page_size < 0:
        raise InvalidCommandError("page_size: must not be negative")
    PAGE_TOKEN.check(request.page_token)
    if request.page_token and not (request.page_token.isascii() and request.page_token.isdecimal()):
        raise InvalidCommandError("page_token: not one of this server's")
    STATES.check(request.states)
    check_labels(request.labels)
    return Filter(
        identity=identity,
        states=[state_from(state) for state in request.states],
        labels=dict(request.labels),
        created_after=read_time("created_after", request.created_after)
        if request.HasField("created_after")
        else None,
        before_seq=int(request.page_token[:18]) if request.page_token else None,
    )


def read_time(name: str, timestamp: Timestamp) -> float:
    """Seconds since the epoch. Raises :class:`InvalidCommandError`."""
    try:
        timestamp.ToNanoseconds()
    except ValueError as error:
        raise InvalidCommandError(f"{name}: {error}") from None
    return timestamp.seconds + timestamp.nanos / 1e9


def job_message(job: JobRecord, retention: float, spec: jobs_pb2.JobSpec | None = None) -> jobs_pb2.Job:
    """A job as it goes to its caller.

    Args:
        retention: seconds that it is kept after its end.
        spec: what it runs, as :func:`spec_message` makes it, where that is at hand.
    """
    message = jobs_pb2.Job(
        id=job.id,
        request_id=job.request_id,
        identity=job.identity,
        spec=spec if spec is not None else spec_message(job.content),
        state=job.state.value,
        signal=job.signal or 0,
        reason=job.reason,
        create_time=_timestamp(job.created),
        stdout=_output(job.stdout),
        stderr=_output(job.stderr),
    )
    if job.exit_code is not None:
        message.exit_code = job.exit_code
    if job.started is not None:
        message.start_time.CopyFrom(_timestamp(job.started))
    if job.ended is not None:
        message.end_time.CopyFrom(_timestamp(job.ended))
        message.expire_time.CopyFrom(_timestamp(job.ended + retention))
    return message


def state_from(value: Any) -> JobState:
    """A state named in a request. Raises :class:`InvalidCommandError`."""
    try:
        return JobState(jobs_pb2.JobState.Name(value))
    except ValueError:
        raise InvalidCommandError(f"states: {value} is not a state of a job") from None


def spec_message(content: JobContent) -> jobs_pb2.JobSpec:
    """What a job runs."""
    message = jobs_pb2.JobSpec(
        user=content.user,
        working_directory=content.cwd,
        environment=dict(content.env),
        output_limit=content.output_limit,
        labels=dict(content.labels),
        source=content.source,
        shell_type=jobs_pb2.SHELL_TYPE_POWERSHELL if content.powershell else jobs_pb2.SHELL_TYPE_NATIVE,
    )
    if content.shell_command is not None:
        message.shell_command = content.shell_command
    else:
        message.argv.args.extend(content.argv)
    for name in ("time_limit", "kill_grace", "lease"):
        if (seconds := getattr(content, name)) is not None:
            getattr(message, name).CopyFrom(_duration(seconds))
    return message


def _output(size: OutputSize) -> jobs_pb2.Output:
    return jobs_pb2.Output(total_bytes=size.total, dropped_bytes=size.dropped, head_bytes=size.head)


def _timestamp(seconds: float) -> Timestamp:
    whole, nanos = _parts(seconds)
    return Timestamp(seconds=whole, nanos=nanos)


def _duration(seconds: float) -> Duration:
    whole, nanos = _parts(seconds)
    return Duration(seconds=whole, nanos=nanos)


def _parts(seconds: float) -> tuple[int, int]:
    # In two parts, each exact: one number of nanoseconds has too many digits for a float.
    whole = int(seconds)
    nanos = round((seconds - whole) * 1e9)
    return whole + nanos // 10**9, nanos % 10**9
