"""A client of durable jobs made of the generated stubs alone, and what tests expect of its calls."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc

from .client import DEADLINE, Metadata

Job = jobs_pb2.Job

_numbers = itertools.count(1)


def new_request_id() -> str:
    """A request id that no test has used."""
    return f"request {next(_numbers)}"


def crc32(data: str | Sequence[str]) -> str:
    text = data if isinstance(data, str) else "\0".join(data)
    return format(zlib.crc32(text.encode()), "08x")


def spec(text: str | None = None, *argv: str, **fields: Any) -> Any:
    """A ``JobSpec``: shell text, or a program where ``text`` is None. Durations are in seconds."""
    message = jobs_pb2.JobSpec(
        **{name: value for name, value in fields.items() if name not in ("time_limit", "kill_grace", "lease")}
    )
    if text is not None:
        message.shell_command = text
    else:
        message.argv.args.extend(argv)
    for name in ("time_limit", "kill_grace", "lease"):
        if name in fields:
            getattr(message, name).FromNanoseconds(round(fields[name] * 1e9))
    return message


@dataclass
class Watched:
    """All that a watch told."""

    states: list[str] = field(default_factory=list)
    output: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})
    gaps: list[tuple[str, int, int]] = field(default_factory=list)
    job: Any = None

    @property
    def stdout(self) -> bytes:
        return self.output["stdout"]

    @property
    def stderr(self) -> bytes:
        return self.output["stderr"]


class JobClient:
    """Calls the job service. Owns nothing; the channel is somebody else's."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata = ()) -> None:
        self._stub = jobs_pb2_grpc.JobServiceStub(channel)  # type: ignore[no-untyped-call]
        self._metadata = tuple(metadata)

    def _call(self, method: str, request: Any) -> Any:
        return getattr(self._stub, method)(request, timeout=DEADLINE, metadata=self._metadata)

    def create(self, job: Any, request_id: str | None = None, digest: str = "") -> Any:
        request_id = new_request_id() if request_id is None else request_id
        return self._call(
            "CreateJob", jobs_pb2.CreateJobRequest(request_id=request_id, spec=job, hash=digest)
        )

    def start_create(self, job: Any, request_id: str) -> Any:
        """The call: a future."""
        request = jobs_pb2.CreateJobRequest(request_id=request_id, spec=job)
        return self._stub.CreateJob.future(request, timeout=DEADLINE, metadata=self._metadata)

    def get(self, job_id: str | None = None, request_id: str | None = None) -> Any:
        return self._call("GetJob", jobs_pb2.GetJobRequest(id=job_id, request_id=request_id))

    def list(
        self,
        states: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        created_after: Any = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> Any:
        request = jobs_pb2.ListJobsRequest(
            states=states,
            labels=labels,
            created_after=created_after,
            page_size=page_size,
            page_token=page_token,
        )
        return self._call("ListJobs", request)

    def cancel(self, job_id: str, reason: str = "", kill: bool = False) -> Any:
        return self._call("CancelJob", jobs_pb2.CancelJobRequest(id=job_id, reason=reason, kill=kill))

    def open_watch(self, job_id: str, stdout_offset: int = 0, stderr_offset: int = 0) -> Any:
        """The call: an iterator of ``WatchJobResponse``."""
        request = jobs_pb2.WatchJobRequest(
            id=job_id, stdout_offset=stdout_offset, stderr_offset=stderr_offset
        )
        return self._call("WatchJob", request)

    def watch(self, job_id: str, stdout_offset: int = 0, stderr_offset: int = 0) -> Watched:
        """Watch to the end, checking what every watch promises."""
        watched = Watched()
        self.follow(
            watched, self.open_watch(job_id, stdout_offset, stderr_offset), stdout_offset, stderr_offset
        )
        assert watched.job.end_time.seconds > 0, "a watch ends with the job's end"
        return watched

    @staticmethod
    def follow(watched: Watched, call: Any, stdout_offset: int = 0, stderr_offset: int = 0) -> None:
        """Take in the messages of a watch until it ends or breaks."""
        offsets = {"stdout": stdout_offset, "stderr": stderr_offset}
        for number, message in enumerate(call):
            event = message.WhichOneof("event")
            assert (event == "job") or number > 0, "the state comes first"
            if event == "job":
                watched.job = message.job
                watched.states.append(jobs_pb2.JobState.Name(message.job.state))
                continue
            chunk = getattr(message, event)
            assert offsets[event] >= 0, f"{event} was not asked for"
            assert chunk.data
            assert chunk.offset >= offsets[event], "a byte came twice"
            if chunk.offset > offsets[event]:
                watched.gaps.append((event, offsets[event], chunk.offset))
            watched.output[event] += chunk.data
            offsets[event] = chunk.offset + len(chunk.data)

    def run(self, job: Any) -> Watched:
        """Create a job and watch it to its end."""
        return self.watch(self.create(job).id)


def state(job: Any) -> str:
    """The name of a job's state."""
    return str(jobs_pb2.JobState.Name(job.state))


@dataclass
class Refusal:
    """The status of a call that was refused, and its details."""

    message: str = ""
    error_info: Any = None
    retry_info: Any = None


@contextmanager
def refused(code: grpc.StatusCode, text: str = "") -> Iterator[Refusal]:
    """The block's call must fail with this status, and a text that begins so."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    error = caught.value
    assert error.code() is code, error.details()
    refusal.message = error.details()
    assert refusal.message.startswith(text), refusal.message
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert (status.code, status.message) == (code.value[0], refusal.message)
            for detail in status.details:
                for name, kind in (
                    ("error_info", error_details_pb2.ErrorInfo),
                    ("retry_info", error_details_pb2.RetryInfo),
                ):
                    if detail.Is(kind.DESCRIPTOR):
                        message = kind()
                        detail.Unpack(message)
                        setattr(refusal, name, message)
