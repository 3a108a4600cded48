"""Servers whose jobs are lies: endless lists, absurd sizes and times, messages without end or sense."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remsvc.cli.exit_codes import job_end_line
from remsvc.cli.job_description import as_json, command_of, duration, short_time
from remsvc.client import ConnectionOptions, Job, OutputChunk, StateChange, job_protocol
from remsvc.client.failures import retry_after_in
from remsvc.client.jobs import WatchEvent
from remsvc.errors import ProtocolError, RemSvcError
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.client.conftest import Connect

from .lying_server import LyingServer

SOON = 20.0


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingServer]:
    server = LyingServer()
    yield server
    server.close()


def a_page(*ids: str, token: str = "") -> bytes:
    jobs = [jobs_pb2.Job(id=job_id, state=jobs_pb2.RUNNING) for job_id in ids]
    return jobs_pb2.ListJobsResponse(jobs=jobs, next_page_token=token).SerializeToString()


def numbered_pages(make: Callable[[int], bytes]) -> Callable[[bytes], list[bytes]]:
    numbers = itertools.count()
    return lambda _: [make(next(numbers))]


ENDLESS_LISTS = {
    "a page that leads to itself": (lambda n: a_page("x", token="same"), "leads to itself"),
    "empty pages": (lambda n: a_page(token=f"{n}"), "pages in a row are empty"),
    "jobs": (lambda n: a_page(*map(str, range(100)), token=f"{n}"), "there are over 2000"),
    "a long token": (lambda n: a_page(token="x" * 100_000), "expected at most 1024 bytes, not 100000"),
    "a token that no server takes back": (lambda n: a_page(token="é" * 600), "page_token: .* not 1200"),
    "a page of more than was asked for": (lambda n: a_page(*map(str, range(101))), "sent 101 jobs"),
}


@pytest.mark.parametrize("kind", ENDLESS_LISTS)
def test_a_list_without_an_end_is_an_error(
    liar: LyingServer, connect: Connect, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_protocol, "MOST_JOBS", 2000)  # a million takes a while to send
    page, told = ENDLESS_LISTS[kind]
    liar.answers["ListJobs"] = numbered_pages(page)
    with connect(ConnectionOptions(liar.target)) as client, pytest.raises(ProtocolError, match=told):
        for _ in client.list_jobs():
            pass


def test_an_answer_that_is_far_too_long_is_not_read(liar: LyingServer, connect: Connect) -> None:
    """It would take twenty times its length: two bytes for each of its many arguments."""
    job = b"\x0a\x00" * 5_000_000
    liar.answers.update(dict.fromkeys(("GetJob", "WatchJob"), lambda _: [job]))
    liar.answers["ListJobs"] = lambda _: [job * 2]
    with connect(ConnectionOptions(liar.target)) as client:
        for call in (
            lambda: client.get_job("job1"),
            lambda: next(client.list_jobs()),
            lambda: next(client.watch_job("job1")),
        ):
            with pytest.raises(ProtocolError, match=r"has [12]0000000 bytes, more than"):
                call()


def test_a_list_with_some_empty_pages_is_whole(liar: LyingServer, connect: Connect) -> None:
    pages = [a_page("a", token="1"), a_page(token="2"), a_page(token="3"), a_page("b")]
    liar.answers["ListJobs"] = numbered_pages(lambda number: pages[number])
    with connect(ConnectionOptions(liar.target)) as client:
        assert [job.id for job in client.list_jobs()] == ["a", "b"]


WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300)
SMALL = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["\x1b[2J", "\u202e", "\x9b", "\n", "\t"]
)
TIMES = st.tuples(WHOLE | st.sampled_from([0, 253_402_300_799, 253_402_300_800, -62_135_596_800]), SMALL)


@st.composite
def jobs(draw: st.DrawFn) -> jobs_pb2.Job:
    """A job that may have anything in its fields."""
    job = jobs_pb2.Job(
        id=draw(st.just("job1") | TEXT),
        request_id=draw(TEXT),
        identity=draw(TEXT),
        state=draw(st.integers(0, 9)),  # type: ignore[arg-type]
        signal=draw(SMALL),
        reason=draw(TEXT),
    )
    if draw(st.booleans()):
        job.exit_code = draw(SMALL)
    for name in ("create_time", "start_time", "end_time", "expire_time"):
        if draw(st.integers(0, 3)) == 0:
            getattr(job, name).seconds, getattr(job, name).nanos = draw(TIMES)
    for name in ("stdout", "stderr"):
        output = getattr(job, name)
        for field in ("total_bytes", "dropped_bytes", "head_bytes"):
            setattr(output, field, draw(st.just(0) | WHOLE))
    spec = job.spec
    if draw(st.booleans()):
        spec.argv.args.extend(draw(st.lists(TEXT, max_size=3)))
    else:
        spec.shell_command = draw(TEXT)
    spec.labels.update(draw(st.dictionaries(TEXT, TEXT, max_size=2)))
    spec.output_limit = draw(st.just(0) | WHOLE)
    for name in ("time_limit", "kill_grace", "lease"):
        if draw(st.integers(0, 3)) == 0:
            getattr(spec, name).seconds, getattr(spec, name).nanos = draw(TIMES)
    return job


def check_job(job: Job) -> None:
    """Whatever a program or the command line does with a job can be done with this one."""
    as_json(job)
    for moment in (job.created_at, job.started_at, job.ended_at, job.expires_at):
        short_time(moment)
        if moment is not None:
            assert moment - timedelta(days=1) < moment < moment + timedelta(days=1)
    duration(job)
    command_of(job)
    for size in (job.stdout, job.stderr):
        assert 0 <= size.kept_end <= size.total
        assert 0 <= size.dropped <= size.total
    if job.ended:
        job_end_line(job)


ANSWERS = st.lists(
    st.one_of(
        jobs().map(lambda job: jobs_pb2.WatchJobResponse(job=job).SerializeToString()),
        st.builds(
            lambda stream, offset, data: jobs_pb2.WatchJobResponse(
                **{stream: jobs_pb2.Chunk(offset=offset, data=data)}
            ).SerializeToString(),
            st.sampled_from(["stdout", "stderr"]),
            WHOLE,
            st.binary(max_size=10),
        ),
        st.binary(max_size=30),
    ),
    max_size=6,
)


def test_whatever_a_server_says_of_jobs_is_a_job_or_an_error(liar: LyingServer, connect: Connect) -> None:
    with connect(ConnectionOptions(liar.target)) as client:

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(job=jobs(), answers=ANSWERS)
        def check(job: jobs_pb2.Job, answers: list[bytes]) -> None:
            liar.answers["GetJob"] = lambda _: [job.SerializeToString()]
            liar.answers["ListJobs"] = lambda _: [jobs_pb2.ListJobsResponse(jobs=[job]).SerializeToString()]
            liar.answers["WatchJob"] = lambda _: answers
            for call in (client.get_job, lambda _: next(client.list_jobs())):
                with suppress(RemSvcError):
                    check_job(call("job1"))  # type: ignore[operator]
            with suppress(RemSvcError):
                for event in client.watch_job("job1", reconnect=False, timeout=SOON):
                    check_event(event)

        check()


def check_event(event: WatchEvent) -> None:
    if isinstance(event, StateChange):
        check_job(event.job)
    else:
        assert event.offset - event.dropped >= 0
        assert event.offset + len(event.data) < 2**63


def state(job_state: int = jobs_pb2.RUNNING, **fields: object) -> bytes:
    job = jobs_pb2.Job(id="job1", state=job_state, **fields)  # type: ignore[arg-type]
    return jobs_pb2.WatchJobResponse(job=job).SerializeToString()


def chunk(data: bytes, offset: int = 0) -> bytes:
    return jobs_pb2.WatchJobResponse(stdout=jobs_pb2.Chunk(data=data, offset=offset)).SerializeToString()


@pytest.mark.parametrize(
    "message", [b"", state(), chunk(b""), chunk(b"x")], ids=["", "state", "no data", "old"]
)
def test_messages_without_end_that_say_nothing_are_an_error(
    liar: LyingServer, connect: Connect, message: bytes
) -> None:
    liar.answers["WatchJob"] = lambda _: itertools.chain([state(), chunk(b"x")], itertools.repeat(message))
    with connect(ConnectionOptions(liar.target)) as client, pytest.raises(ProtocolError, match="nothing new"):
        for _ in client.watch_job("job1"):
            pass


def test_output_that_is_shorter_than_recorded_is_a_gap_and_the_watch_completes(
    liar: LyingServer, connect: Connect
) -> None:
    sizes = jobs_pb2.Output(total_bytes=10, head_bytes=10)
    end = state(jobs_pb2.SUCCEEDED, stdout=sizes, exit_code=0)
    liar.answers["WatchJob"] = lambda request: [
        end,
        *([chunk(b"0123")] if jobs_pb2.WatchJobRequest.FromString(request).stdout_offset < 4 else []),
        end,
    ]
    started = time.monotonic()
    with connect(ConnectionOptions(liar.target)) as client:
        first, gap, last = client.watch_job("job1")
    assert time.monotonic() - started < SOON
    assert isinstance(first, OutputChunk)
    assert isinstance(gap, OutputChunk)
    assert (first.data, first.dropped, first.lost) == (b"0123", 0, False)
    assert (gap.stream, gap.offset, gap.data, gap.dropped, gap.lost) == ("stdout", 10, b"", 6, True)
    assert isinstance(last, StateChange)
    assert last.job.ended


@pytest.mark.parametrize(("seconds", "waited"), [(10**11, 300.0), (-5, 0.0), (2, 2.0)])
def test_nobody_waits_for_centuries_before_the_next_attempt(seconds: int, waited: float) -> None:
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)))
    assert retry_after_in((("grpc-status-details-bin", status.SerializeToString()),)) == waited
