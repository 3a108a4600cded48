"""Watching a job: every byte once and in order, whatever breaks on the way."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from remsvc.client import AsyncClient, ConnectionOptions, Job, JobState, OutputChunk, StateChange
from remsvc.client.deadline import Deadline
from remsvc.client.jobs import WatchEvent
from remsvc.client.watch import Watch
from remsvc.errors import DeadlineExceededError, NotFoundError, ProtocolError, ServerError, UnavailableError
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

from .conftest import DEADLINE, Connect
from .flavours import AnyClient, asyncio_client, blocking_client
from .scripted_jobs import CuttingProxy, ScriptedJob, ScriptedJobs

Eventually = Callable[[Callable[[], object]], None]

RANDOM = random.Random(7).randbytes(3_000_000)


@dataclass
class Seen:
    """What a watch told, put together as a consumer would."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    states: list[JobState] = field(default_factory=list)
    dropped: int = 0
    job: Job | None = None

    def add(self, event: WatchEvent) -> None:
        if isinstance(event, StateChange):
            self.job = event.job
            self.states.append(event.job.state)
        else:
            output: bytearray = getattr(self, event.stream)
            assert event.offset == len(output) + event.dropped, "neither lost nor doubled"
            assert event.data
            output += bytes(event.dropped) + event.data
            self.dropped += event.dropped

    @classmethod
    def of(cls, events: Iterable[WatchEvent]) -> Seen:
        seen = cls()
        for event in events:
            seen.add(event)
        return seen


def options(server: ScriptedJobs | CuttingProxy) -> ConnectionOptions:
    return ConnectionOptions(server.target).for_jobs()


def test_an_ended_job_is_told_whole(jobs: ScriptedJobs, connect: Connect) -> None:
    jobs.finish(RANDOM, b"\x00\xff\r\n", exit_code=3)
    with connect(options(jobs)) as client:
        seen = Seen.of(client.watch_job("job1"))
    assert (seen.stdout, seen.stderr) == (RANDOM, b"\x00\xff\r\n")
    assert seen.states == [JobState.FAILED]
    assert seen.job is not None
    assert (seen.job.exit_code, seen.job.stdout.total) == (3, len(RANDOM))


def test_a_running_job_is_told_as_it_goes(jobs: ScriptedJobs, connect: Connect) -> None:
    job = jobs.add(state=jobs_pb2.QUEUED)
    with connect(options(jobs)) as client:
        events = client.watch_job("job1")
        seen = Seen()
        seen.add(next(events))
        jobs.change(job, jobs_pb2.RUNNING)
        seen.add(next(events))
        for text in (b"one", b"two", b"three"):
            jobs.write(job, stdout=text)
            seen.add(next(events))
            assert seen.stdout.endswith(text)
            jobs.write(job, stderr=text)
            seen.add(next(events))
            assert seen.stderr.endswith(text)
        jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
        seen.add(next(events))
        with pytest.raises(StopIteration):
            next(events)
    assert seen.states == [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]


@pytest.mark.parametrize(
    ("offsets", "told"),
    [((3, 0), (b"3456789", b"err")), ((10, 3), (b"", b"")), ((-1, 2), (b"", b"r")), ((99, -1), (b"", b""))],
)
def test_a_watch_begins_where_it_is_told(
    jobs: ScriptedJobs, connect: Connect, offsets: tuple[int, int], told: tuple[bytes, bytes]
) -> None:
    jobs.finish(b"0123456789", b"err")
    with connect(options(jobs)) as client:
        events = list(client.watch_job("job1", stdout_offset=offsets[0], stderr_offset=offsets[1]))
    chunks = [event for event in events if isinstance(event, OutputChunk)]
    for stream, text in zip(("stdout", "stderr"), told, strict=True):
        assert b"".join(chunk.data for chunk in chunks if chunk.stream == stream) == text
    assert all(chunk.dropped == 0 for chunk in chunks)


def test_what_was_dropped_is_said_once(jobs: ScriptedJobs, connect: Connect) -> None:
    job = jobs.finish(RANDOM)
    job.message.stdout.MergeFrom(jobs_pb2.Output(head_bytes=1000, dropped_bytes=2_000_000))
    jobs.watch_faults = [(count, grpc.StatusCode.UNAVAILABLE) for count in (1, 2, 3, 4)]
    with connect(options(jobs)) as client:
        seen = Seen.of(client.watch_job("job1"))
        assert seen.stdout == RANDOM[:1000] + bytes(2_000_000) + RANDOM[2_001_000:]
        assert seen.dropped == 2_000_000
        (first, second) = [
            event
            for event in client.watch_job("job1", stdout_offset=500)
            if isinstance(event, OutputChunk) and event.offset < 2_001_001
        ]
    assert (first.offset, first.dropped, second.offset, second.dropped) == (500, 0, 2_001_000, 2_000_000)


def test_output_whose_tail_is_dropped_is_complete(jobs: ScriptedJobs, connect: Connect) -> None:
    job = jobs.finish(b"0123456789")
    job.message.stdout.MergeFrom(jobs_pb2.Output(head_bytes=4, dropped_bytes=6))
    with connect(options(jobs)) as client:
        assert Seen.of(client.watch_job("job1")).stdout == b"0123"


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", None])
def test_a_broken_watch_goes_on_where_it_was(jobs: ScriptedJobs, connect: Connect, code: str | None) -> None:
    job = jobs.finish(RANDOM[:1000], RANDOM[:500])
    job.chunk = 100
    status = None if code is None else grpc.StatusCode[code]
    jobs.watch_faults = [(0, status), (3, status)]
    losses: list[ServerError] = []
    with connect(options(jobs)) as client:
        seen = Seen.of(client.watch_job("job1", on_disconnect=losses.append))
    assert (seen.stdout, seen.stderr) == (RANDOM[:1000], RANDOM[:500])
    assert seen.states == [JobState.SUCCEEDED]
    assert [loss.code for loss in losses] == [code or "UNKNOWN"] * 2


def seen_through_losses(client: AnyClient, jobs: ScriptedJobs, job: ScriptedJob) -> Seen:
    """What a watch tells of a job that says something, and ends, when the watch was lost nine times."""
    losses: list[ServerError] = []

    def note(loss: ServerError) -> None:
        losses.append(loss)
        if len(losses) == 9:
            jobs.write(job, b"at last")
            jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)

    return Seen.of(client.watch_job("job1", on_disconnect=note))


def test_a_silent_job_is_watched_through_whatever_ends_silent_streams(
    jobs: ScriptedJobs, connect: Connect
) -> None:
    job = jobs.add()
    jobs.watch_faults, jobs.silence = [(1, grpc.StatusCode.INTERNAL)] * 9, 0.2
    with connect(options(jobs)) as client:
        seen = seen_through_losses(client, jobs, job)
    assert seen.stdout == b"at last"
    assert seen.states == [JobState.RUNNING, JobState.SUCCEEDED]


def test_a_silent_job_is_watched_through_a_proxy_that_cuts_idle_connections(
    jobs: ScriptedJobs, connect: Connect
) -> None:
    job = jobs.add()
    with closing(CuttingProxy(jobs.port, idle_seconds=0.2)) as proxy, connect(options(proxy)) as client:
        seen = seen_through_losses(client, jobs, job)
    assert seen.stdout == b"at last"
    assert seen.states == [JobState.RUNNING, JobState.SUCCEEDED]


def test_a_server_with_too_many_calls_is_asked_again_when_it_says(
    jobs: ScriptedJobs, connect: Connect
) -> None:
    jobs.finish(b"x")
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=500_000_000)))
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "5000 calls in progress already", details)
    jobs.refusals["WatchJob"] = [refusal] * 2
    losses: list[ServerError] = []
    with connect(options(jobs)) as client:
        started = time.monotonic()
        assert Seen.of(client.watch_job("job1", on_disconnect=losses.append)).stdout == b"x"
    assert time.monotonic() - started >= 1.0
    assert [loss.code for loss in losses] == ["RESOURCE_EXHAUSTED"] * 2


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "DATA_LOSS"])
def test_an_error_that_stays_is_told_at_once(jobs: ScriptedJobs, connect: Connect, code: str) -> None:
    jobs.finish(b"x")
    jobs.watch_faults = [(1, grpc.StatusCode[code])] * 2
    with connect(options(jobs)) as client, pytest.raises(ServerError, match=f"{code}: as the test wants it"):
        list(client.watch_job("job1"))
    assert len(jobs.asked("WatchJob")) == 1


def test_a_watch_without_reconnecting_tells_the_first_failure(jobs: ScriptedJobs, connect: Connect) -> None:
    jobs.finish(b"x")
    jobs.watch_faults = [(1, grpc.StatusCode.UNAVAILABLE)]
    with connect(options(jobs)) as client, pytest.raises(UnavailableError):
        list(client.watch_job("job1", reconnect=False))
    assert len(jobs.asked("WatchJob")) == 1


def test_a_server_that_always_fails_is_given_up(jobs: ScriptedJobs) -> None:
    # Its states that say nothing new do not count as progress. No pauses: decided without a connection.
    watch = a_watch()
    state = jobs_pb2.WatchJobResponse(job=jobs_pb2.Job(id="job1", state=jobs_pb2.RUNNING)).SerializeToString()
    failure = ServerError("INTERNAL", "a defect", "here")
    pauses = []

    def fail_for_ever() -> None:
        while True:
            watch.begin()
            watch.receive(state)
            pauses.append(watch.pause_after(failure))

    with pytest.raises(ServerError, match="a defect"):
        fail_for_ever()
    assert 3 < len(pauses) < 20
    assert all(0.1 <= pause <= 5 for pause in pauses)


def test_pauses_grow_until_something_new_comes() -> None:
    watch = a_watch()
    failure = UnavailableError("UNAVAILABLE", "gone", "here")
    pauses = [watch.pause_after(failure) for _ in range(50)]
    assert 0.1 <= pauses[0] <= 0.2
    assert all(2.5 <= pause <= 5.0 for pause in pauses[6:])
    assert len(set(pauses)) > 40, "clients do not come back in step"
    watch.receive(jobs_pb2.WatchJobResponse(stdout=jobs_pb2.Chunk(data=b"x")).SerializeToString())
    assert 0.1 <= watch.pause_after(failure) <= 0.2


def test_patience_ends(connect: Connect, jobs: ScriptedJobs) -> None:
    jobs.add()
    with connect(options(jobs)) as client:
        events = client.watch_job("job1", reconnect_timeout=0.5)
        next(events)
        jobs.stop()
        started = time.monotonic()
        with pytest.raises(ServerError, match="nothing listens on this port"):
            next(events)
        assert time.monotonic() - started < DEADLINE


def test_the_time_limit_holds_while_connected_and_while_not(connect: Connect, jobs: ScriptedJobs) -> None:
    jobs.add()
    with connect(options(jobs)) as client:
        with pytest.raises(DeadlineExceededError, match=r"the job has not ended within 0\.5 s"):
            list(client.watch_job("job1", timeout=0.5))
        events = client.watch_job("job1", timeout=1.0)
        next(events)
        jobs.stop()
        with pytest.raises(DeadlineExceededError, match=r"the job has not ended within 1 s"):
            next(events)


def test_a_watch_survives_a_restart_of_the_server(
    connect: Connect, jobs: ScriptedJobs, eventually: Eventually
) -> None:
    job = jobs.add(b"before ")
    losses: list[ServerError] = []
    with connect(options(jobs)) as client:
        events = client.watch_job("job1", on_disconnect=losses.append)
        seen = Seen()
        seen.add(next(events))
        seen.add(next(events))
        for _ in range(2):
            jobs.stop()
            jobs.write(job, b"down ")
            restarter = threading.Timer(0.3, jobs.start)
            restarter.start()
            seen.add(next(events))
            restarter.join()
        jobs.write(job, b"after")
        jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
        for event in events:
            seen.add(event)
    assert seen.stdout == b"before down down after"
    assert seen.states == [JobState.RUNNING, JobState.SUCCEEDED]
    assert len(losses) >= 2


def test_a_job_that_is_gone_after_a_restart_is_told(connect: Connect, jobs: ScriptedJobs) -> None:
    jobs.add()
    with connect(options(jobs)) as client:
        events = client.watch_job("job1")
        next(events)
        jobs.stop()
        jobs.jobs.clear()
        jobs.start()
        with pytest.raises(NotFoundError):
            next(events)


def test_an_end_that_comes_before_all_output_is_not_believed(jobs: ScriptedJobs, connect: Connect) -> None:
    job = jobs.finish(b"0123456789")
    job.message.stdout.total_bytes = job.message.stdout.head_bytes = 15
    losses: list[ServerError] = []

    def complete(loss: ServerError) -> None:
        losses.append(loss)
        jobs.write(job, b"abcde")

    with connect(options(jobs)) as client:
        seen = Seen.of(client.watch_job("job1", on_disconnect=complete))
    assert seen.stdout == b"0123456789abcde"
    assert seen.states == [JobState.SUCCEEDED]
    assert "before the job's end had come with all its output" in losses[0].details


def test_bytes_that_come_twice_are_told_once(jobs: ScriptedJobs, connect: Connect) -> None:
    job = jobs.finish(RANDOM[:1000])
    job.chunk, job.overlap = 100, 30
    jobs.watch_faults = [(count, grpc.StatusCode.UNAVAILABLE) for count in (2, 3)]
    with connect(options(jobs)) as client:
        assert Seen.of(client.watch_job("job1")).stdout == RANDOM[:1000]


def test_what_was_not_asked_for_is_an_error() -> None:
    watch = a_watch(stderr_offset=-1)
    chunk = jobs_pb2.WatchJobResponse(stderr=jobs_pb2.Chunk(data=b"x"))
    with pytest.raises(ProtocolError, match="stderr, which was not asked for"):
        watch.receive(chunk.SerializeToString())
    other = jobs_pb2.WatchJobResponse(job=jobs_pb2.Job(id="job2", state=jobs_pb2.RUNNING))
    with pytest.raises(ProtocolError, match="job job2 instead of job1"):
        watch.receive(other.SerializeToString())
    with pytest.raises(ProtocolError, match="cannot be read"):
        watch.receive(b"\xff\xff")


def test_events_of_a_later_version_are_passed_over() -> None:
    watch = a_watch()
    assert watch.receive(b"") is None
    assert watch.receive(b"\xf2\x3f\x01x") is None  # field 1022


def a_watch(*, stdout_offset: int = 0, stderr_offset: int = 0) -> Watch:
    return Watch(
        "job1",
        stdout_offset=stdout_offset,
        stderr_offset=stderr_offset,
        deadline=Deadline(None),
        patience=300,
        options=ConnectionOptions("localhost:1"),
        on_disconnect=None,
    )


@given(
    stdout=st.binary(max_size=300),
    stderr=st.binary(max_size=300),
    start=st.tuples(st.integers(-1, 320), st.integers(-1, 320)),
    gap=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    data=st.data(),
)
def test_whatever_the_cuts_the_bytes_come_once_and_in_order(
    stdout: bytes, stderr: bytes, start: tuple[int, int], gap: tuple[int, int], data: st.DataObject
) -> None:
    """A server's part played by hand: any chunks, any overlap, any gap, cut after any message."""
    output = {"stdout": stdout, "stderr": stderr}
    gap_end = {"stdout": min(sum(gap), len(stdout)), "stderr": 0}
    gap_start = {"stdout": min(gap[0], len(stdout)), "stderr": 0}
    watch = a_watch(stdout_offset=start[0], stderr_offset=start[1])
    got = {stream: {} for stream in output}  # type: dict[str, dict[int, int]]
    last = {"stdout": start[0], "stderr": start[1]}
    ends = []

    def consume(message: jobs_pb2.WatchJobResponse) -> None:
        event = watch.receive(message.SerializeToString())
        if isinstance(event, OutputChunk):
            assert event.offset == last[event.stream] + event.dropped
            assert event.data
            last[event.stream] = event.offset + len(event.data)
            for position, byte in enumerate(event.data, event.offset):
                assert position not in got[event.stream]
                got[event.stream][position] = byte
        elif event is not None and event.job.ended:
            ends.append(event)

    def sizes(stream: str) -> jobs_pb2.Output:
        dropped = gap_end[stream] - gap_start[stream]
        return jobs_pb2.Output(
            total_bytes=len(output[stream]),
            dropped_bytes=dropped,
            head_bytes=gap_start[stream] if dropped else len(output[stream]),
        )

    final = jobs_pb2.Job(id="job1", state=jobs_pb2.SUCCEEDED, stdout=sizes("stdout"), stderr=sizes("stderr"))
    for attempt in range(10):
        request = jobs_pb2.WatchJobRequest.FromString(watch.begin())
        at = {"stdout": request.stdout_offset, "stderr": request.stderr_offset}
        consume(jobs_pb2.WatchJobResponse(job=jobs_pb2.Job(id="job1", state=jobs_pb2.RUNNING)))
        messages = data.draw(st.integers(0, 5)) if attempt < 9 else 10_000
        while messages and (open_streams := [s for s in at if 0 <= at[s] < len(output[s])]):
            messages -= 1
            stream = data.draw(st.sampled_from(open_streams)) if attempt < 9 else open_streams[0]
            offset, limit = at[stream], len(output[stream])
            if offset < gap_start[stream] < gap_end[stream]:
                limit = gap_start[stream]
            elif gap_start[stream] <= offset < gap_end[stream]:
                offset = gap_end[stream]
                if offset == limit:
                    at[stream] = limit
                    continue
            size = data.draw(st.integers(1, 100)) if attempt < 9 else 1000
            begin = max(gap_end[stream] if offset >= gap_end[stream] else 0, offset - (size % 7))
            chunk = jobs_pb2.Chunk(offset=begin, data=output[stream][begin : min(limit, offset + size)])
            at[stream] = min(limit, offset + size)
            consume(jobs_pb2.WatchJobResponse(**{stream: chunk}))
    consume(jobs_pb2.WatchJobResponse(job=final))
    assert watch.ended
    assert len(ends) == 1
    for number, stream in enumerate(("stdout", "stderr")):
        wanted = range(start[number], len(output[stream])) if start[number] >= 0 else range(0)
        kept = [at for at in wanted if not gap_start[stream] <= at < gap_end[stream]]
        assert got[stream] == {position: output[stream][position] for position in kept}


@pytest.mark.parametrize("flavour", [asyncio_client, blocking_client], ids=["asyncio", "blocking"])
def test_connections_may_be_cut_after_any_byte(flavour: Connect) -> None:
    stdout, stderr = RANDOM[:200_000], RANDOM[200_000:250_000]

    @settings(max_examples=8)
    @given(
        cuts=st.lists(st.one_of(st.integers(1, 600), st.integers(1, 120_000)), min_size=1, max_size=3),
        chunk=st.sampled_from([1_000, 16_384, 100_000]),
    )
    def check(cuts: list[int], chunk: int) -> None:
        job.chunk = chunk
        # A proxy each: gRPC would share the connection of the client before.
        with closing(CuttingProxy(jobs.port)) as proxy:
            proxy.cuts = list(cuts)
            with flavour(options(proxy)) as client:
                seen = Seen.of(client.watch_job("job1"))
        assert (seen.stdout, seen.stderr) == (stdout, stderr)
        assert seen.states == [JobState.SUCCEEDED]
        assert proxy.cuts == [], "every cut was made"

    with closing(ScriptedJobs()) as jobs:
        job = jobs.finish(stdout, stderr)
        check()


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
@pytest.mark.parametrize("flavour", ["AsyncClient", "Client"])
def test_a_slow_consumer_costs_no_memory(jobs: ScriptedJobs, flavour: str) -> None:
    job = jobs.finish(bytes(150_000_000))
    job.chunk = 256 * 1024
    script = f"""
import asyncio, re, time
from remsvc.client import {flavour}, ConnectionOptions, OutputChunk
options = ConnectionOptions({jobs.target!r})
async def asynchronous():
    total = 0
    async with {flavour}(options) as client:
        async for event in client.watch_job("job1"):
            if isinstance(event, OutputChunk):
                total += len(event.data)
                if total < 3_000_000: await asyncio.sleep(0.05)
    return total
def blocking():
    total = 0
    with {flavour}(options) as client:
        for event in client.watch_job("job1"):
            if isinstance(event, OutputChunk):
                total += len(event.data)
                if total < 3_000_000: time.sleep(0.05)
    return total
assert (asyncio.run(asynchronous()) if {flavour!r} == "AsyncClient" else blocking()) == 150_000_000
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 150_000, "kilobytes, of which Python and gRPC take 60,000"


def test_closing_the_iterator_ends_the_watch(
    jobs: ScriptedJobs, connect: Connect, eventually: Eventually
) -> None:
    jobs.add()
    with connect(options(jobs)) as client:
        events = client.watch_job("job1")
        next(events)
        eventually(lambda: jobs.watches == 1)
        events.close()  # type: ignore[attr-defined]
        eventually(lambda: jobs.watches == 0)
    assert jobs.asked("CancelJob") == []


async def test_cancelling_the_consumer_ends_the_watch_alone(
    jobs: ScriptedJobs, eventually: Eventually
) -> None:
    jobs.add()
    async with AsyncClient(options(jobs)) as client:
        begun = asyncio.Event()

        async def consume() -> None:
            async for _ in client.watch_job("job1"):
                begun.set()

        consumer = asyncio.create_task(consume())
        await asyncio.wait_for(begun.wait(), DEADLINE)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        await asyncio.to_thread(eventually, lambda: jobs.watches == 0)
    assert jobs.asked("CancelJob") == []


async def test_many_watches_share_one_client(jobs: ScriptedJobs) -> None:
    for number in range(200):
        jobs.finish(RANDOM[number * 1000 : (number + 1) * 1000])

    async def watch(number: int) -> bytes:
        seen = Seen()
        async for event in client.watch_job(f"job{number + 1}"):
            seen.add(event)
        return bytes(seen.stdout)

    async with AsyncClient(options(jobs)) as client:
        outputs = await asyncio.gather(*map(watch, range(200)))
    assert b"".join(outputs) == RANDOM[:200_000]
