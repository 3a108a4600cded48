"""How often an identity calls, and how much its requests hold, keeps nobody else out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from tests.attacks.conftest import ATTACKER, AUTH, AUTH_BOTH, METADATA, eventually, status_of
from tests.conftest import DEADLINE, Serve

_BY_ATTACKER = (ATTACKER,)
_EXHAUSTED, _OK = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK


def calls(channel: grpc.Channel) -> dict[str, Callable[[object], object]]:
    """One of every method; each takes the metadata."""
    version_1, jobs = RemSvc_pb2_grpc.RemSvcStub(channel), jobs_pb2_grpc.JobServiceStub(channel)

    def unary(method: object, request: object) -> Callable[[object], object]:
        return lambda metadata: method(request, metadata=metadata, timeout=DEADLINE)  # type: ignore[operator]

    def streaming(method: object, request: object) -> Callable[[object], object]:
        return lambda metadata: list(method(request, metadata=metadata, timeout=DEADLINE))  # type: ignore[operator]

    return {
        "Ping": unary(version_1.Ping, RemSvc_pb2.PingMsg()),
        "GetStatus": unary(version_1.GetStatus, RemSvc_pb2.Empty()),
        "RemCmd": unary(version_1.RemCmd, RemSvc_pb2.RemCmdMsg(cmd="true")),
        "RemCmdStrm": streaming(version_1.RemCmdStrm, iter([])),
        "CreateJob": unary(jobs.CreateJob, jobs_pb2.CreateJobRequest()),
        "GetJob": unary(jobs.GetJob, jobs_pb2.GetJobRequest(id="none")),
        "ListJobs": unary(jobs.ListJobs, jobs_pb2.ListJobsRequest()),
        "CancelJob": unary(jobs.CancelJob, jobs_pb2.CancelJobRequest(id="none")),
        "WatchJob": streaming(jobs.WatchJob, jobs_pb2.WatchJobRequest(id="none")),
    }


@pytest.mark.parametrize("transport", ["http2", "grpc"])
def test_every_method_counts_as_a_call(serve: Serve, transport: str) -> None:
    server = serve(f"{AUTH_BOTH}[limits]\ncall_rate = 9/h\n", "--transport", transport)
    with grpc.insecure_channel(server.target) as channel:
        each = calls(channel)
        assert len(each) == 9
        for call in each.values():
            assert status_of(lambda call=call: call(_BY_ATTACKER)) is not _EXHAUSTED
        for call in calls(channel).values():
            assert status_of(lambda call=call: call(_BY_ATTACKER)) is _EXHAUSTED
        assert status_of(lambda: each["Ping"](METADATA)) is _OK


def test_an_unhurried_caller_is_told_when_to_come_back(serve: Serve) -> None:
    server = serve(f"{AUTH_BOTH}[limits]\ncall_rate = 1/s\n")
    with grpc.insecure_channel(server.target) as channel:
        ping = calls(channel)["Ping"]
        # The second one may come too late to be too early, where the machine is busy.
        eventually(lambda: status_of(lambda: ping(METADATA)) is _EXHAUSTED)
        eventually(lambda: status_of(lambda: ping(METADATA)) is _OK)


@pytest.mark.parametrize("way", ["calls", "streams"])
def test_large_commands_that_run_take_no_more_than_their_share(serve: Serve, way: str) -> None:
    server = serve(f"{AUTH_BOTH}[limits]\nmax_request_bytes = 4194304\n")
    large = RemSvc_pb2.RemCmdMsg(cmd="exec sleep 1000 #" + "x" * 120_000)
    with grpc.insecure_channel(server.target) as channel:
        stub = RemSvc_pb2_grpc.RemSvcStub(channel)
        if way == "calls":
            held = [stub.RemCmd.future(large, metadata=_BY_ATTACKER) for _ in range(40)]
        else:
            held = [stub.RemCmdStrm(iter([large]), metadata=_BY_ATTACKER) for _ in range(40)]
        eventually(lambda: sum(call.done() for call in held) >= 5)
        refused = [call for call in held if call.done()]
        assert {call.code() for call in refused} == {_EXHAUSTED}
        assert "the requests being answered have" in refused[0].details()
        assert len(refused) < 20
        # Others have room, for large ones as well.
        other = RemSvc_pb2.RemCmdMsg(cmd="true #" + "x" * 120_000)
        assert stub.RemCmd(other, metadata=METADATA, timeout=DEADLINE).rc == 0
        small = RemSvc_pb2.RemCmdMsg(cmd="true")
        assert stub.RemCmd(small, metadata=_BY_ATTACKER, timeout=DEADLINE).rc == 0
        for call in held:
            call.cancel()
        eventually(
            lambda: status_of(lambda: stub.RemCmd(other, metadata=_BY_ATTACKER, timeout=DEADLINE)) is _OK
        )


@pytest.mark.parametrize("transport", ["http2", "grpc"])
def test_a_stream_that_has_run_something_waits_for_room(serve: Serve, transport: str, tmp_path: Path) -> None:
    """To refuse its next command would end it half-way, for a caller who cannot just begin again."""
    server = serve(f"{AUTH}[limits]\nmax_request_bytes = 4194304\n", "--transport", transport)
    go, runs = tmp_path / "go", tmp_path / "runs"
    fill = "#" + "x" * 100_000
    first = RemSvc_pb2.RemCmdMsg(cmd=f"printf x >>{runs}; until [ -e {go} ]; do sleep 0.1; done {fill}")
    more = [RemSvc_pb2.RemCmdMsg(cmd=f"true {fill}", tid=tid) for tid in (1, 2)]
    one = RemSvc_pb2.RemCmdMsg(cmd=f"true {fill}")
    all_run = threading.Event()
    with grpc.insecure_channel(server.target) as channel, ExitStack() as ending:
        ending.callback(all_run.set)
        stub = RemSvc_pb2_grpc.RemSvcStub(channel)
        # All of them have room for their first command, and not for the next one beside it.
        streams = [
            stub.RemCmdStrm(_when(all_run, [first], more), metadata=METADATA, timeout=DEADLINE)
            for _ in range(30)
        ]
        eventually(lambda: runs.exists() and len(runs.read_text()) == 30)
        all_run.set()
        eventually(
            lambda: status_of(lambda: stub.RemCmd(one, metadata=METADATA, timeout=DEADLINE)) is _EXHAUSTED
        )
        go.touch()
        for stream in streams:
            assert [answer.tid for answer in stream] == [0, 1, 2]


def test_a_command_that_has_ended_holds_no_room(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nmax_request_bytes = 4194304\n")
    large = RemSvc_pb2.RemCmdMsg(cmd="true #" + "x" * 120_000)
    with grpc.insecure_channel(server.target) as channel, ExitStack() as ending:
        stub = RemSvc_pb2_grpc.RemSvcStub(channel)
        for _ in range(60):  # twice as many as there is room for
            stop = threading.Event()
            ending.callback(stop.set)
            stream = stub.RemCmdStrm(_when(stop, [large], []), metadata=METADATA)
            ending.callback(stream.cancel)
            assert next(stream).rc == 0


def _when(
    event: threading.Event, before: list[RemSvc_pb2.RemCmdMsg], after: list[RemSvc_pb2.RemCmdMsg]
) -> Iterator[RemSvc_pb2.RemCmdMsg]:
    yield from before
    event.wait()
    yield from after
