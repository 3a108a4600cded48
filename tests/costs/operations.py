"""The operations whose costs are guarded, as a caller asks for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc

_SECONDS = 50.0
_STREAM = 10
_request_ids = (f"costs-{number}" for number in itertools.count())


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        do: does it over a connection, and waits until it is done.
        batch: how many of them, one after another, are looked at together: they take some hundredths
            of a second.
        warm_up: how many until a server is in its steady state: its caches and lists of recent things
            are full.
    """

    do: Callable[[grpc.Channel], None]
    batch: int
    warm_up: int = 400


def _ping(channel: grpc.Channel) -> None:
    request = RemSvc_pb2.PingMsg(seq=1, data=b"some data")
    assert RemSvc_pb2_grpc.RemSvcStub(channel).Ping(request, timeout=_SECONDS).seq == 1


def _command(channel: grpc.Channel) -> None:
    request = RemSvc_pb2.RemCmdMsg(cmd="true", tid=1)
    assert RemSvc_pb2_grpc.RemSvcStub(channel).RemCmd(request, timeout=_SECONDS).rc == 0


def _stream(channel: grpc.Channel) -> None:
    requests = [RemSvc_pb2.RemCmdMsg(cmd="true", tid=number) for number in range(_STREAM)]
    answers = RemSvc_pb2_grpc.RemSvcStub(channel).RemCmdStrm(iter(requests), timeout=_SECONDS)
    assert [(answer.tid, answer.rc) for answer in answers] == [(number, 0) for number in range(_STREAM)]


def _job(channel: grpc.Channel) -> None:
    jobs = jobs_pb2_grpc.JobServiceStub(channel)
    spec = jobs_pb2.JobSpec(shell_command="true")
    request = jobs_pb2.CreateJobRequest(request_id=next(_request_ids), spec=spec)
    job = jobs.CreateJob(request, timeout=_SECONDS)
    *_, last = jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job.id), timeout=_SECONDS)
    assert last.job.state == jobs_pb2.SUCCEEDED, last


OPERATIONS = {
    "ping": Operation(_ping, 10),
    "version-1 command": Operation(_command, 8),
    f"stream of {_STREAM} version-1 commands": Operation(_stream, 4, warm_up=400 // _STREAM),
    "durable job, created and watched": Operation(_job, 4, warm_up=600),
}
