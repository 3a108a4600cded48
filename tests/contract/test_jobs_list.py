"""``ListJobs``: filters, pages, and version-1 commands among the jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from .client import Client
from .commands import posix_only
from .jobs import JobClient, Watched, refused, spec, state
from .waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = posix_only

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def jobs(serve_module: Callable[..., ServerProcess]) -> Iterator[JobClient]:
    with grpc.insecure_channel(serve_module().target) as channel:
        yield JobClient(channel)


@pytest.fixture(scope="module")
def created(jobs: JobClient) -> list[Any]:
    """Jobs, oldest first."""
    created = []
    for number in range(12):
        labels = {"number": str(number), "parity": "even" if number % 2 == 0 else "odd", "ü": '"'}
        created.append(jobs.run(spec(f"exit {number % 3}", labels=labels)).job)
    return created


def ids(answer: Any) -> list[str]:
    return [job.id for job in answer.jobs]


def newest_first(jobs: list[Any]) -> list[str]:
    return [job.id for job in reversed(jobs)]


def test_newest_first_and_whole(jobs: JobClient, created: list[Any]) -> None:
    answer = jobs.list()
    assert list(answer.jobs) == created[::-1]
    assert answer.next_page_token == ""


@pytest.mark.parametrize("size", [1, 5, 6, 11, 12, 13, 1000, 2**31 - 1])
def test_pages(jobs: JobClient, created: list[Any], size: int) -> None:
    found: list[str] = []
    token = ""
    while True:
        answer = jobs.list(page_size=size, page_token=token)
        assert len(answer.jobs) <= size
        found += ids(answer)
        token = answer.next_page_token
        if not token:
            break
        assert len(answer.jobs) == size
    assert found == newest_first(created)


def test_pages_are_not_disturbed_by_new_jobs(jobs: JobClient, created: list[Any]) -> None:
    wanted = {"ü": '"'}
    first = jobs.list(page_size=5, labels=wanted)
    jobs.run(spec("true", labels={"another": ""}))
    second = jobs.list(page_size=100, page_token=first.next_page_token, labels=wanted)
    assert ids(first) + ids(second) == newest_first(created)


def test_by_label(jobs: JobClient, created: list[Any]) -> None:
    assert ids(jobs.list(labels={"parity": "odd"})) == newest_first(created[1::2])
    assert ids(jobs.list(labels={"parity": "odd", "number": "3"})) == [created[3].id]
    assert ids(jobs.list(labels={"parity": "odd", "number": "4"})) == []
    assert ids(jobs.list(labels={"ü": '"', "number": "4"})) == [created[4].id]
    assert ids(jobs.list(labels={"no such label": ""})) == []


def test_by_state(jobs: JobClient, created: list[Any]) -> None:
    wanted = {"ü": '"'}
    assert ids(jobs.list(states=["FAILED"], labels=wanted)) == newest_first(
        [job for number, job in enumerate(created) if number % 3]
    )
    assert ids(jobs.list(states=["FAILED", "SUCCEEDED"], labels=wanted)) == newest_first(created)
    assert ids(jobs.list(states=["LOST", "QUEUED"], labels=wanted)) == []
    for wrong in ([0], [99], ["FAILED", 0]):
        with refused(INVALID, "states: "):
            jobs.list(states=wrong)


def test_by_time(jobs: JobClient, created: list[Any]) -> None:
    """The time of a job is that of this job or later, to the nanosecond."""
    wanted = {"ü": '"'}
    for number, job in enumerate(created):
        answer = jobs.list(created_after=job.create_time, labels=wanted)
        assert ids(answer) == newest_first(created[number:])
    later = Timestamp(seconds=created[-1].create_time.seconds + 3600)
    assert ids(jobs.list(created_after=later)) == []
    for wrong in (Timestamp(nanos=-1), Timestamp(seconds=2**60), Timestamp(nanos=2_000_000_000)):
        with refused(INVALID, "created_after: "):
            jobs.list(created_after=wrong)


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "²", " ", "1;drop table jobs", "\0"])
def test_a_page_token_that_is_none(jobs: JobClient, token: str) -> None:
    with refused(INVALID, "page_token: not one of this server's"):
        jobs.list(page_token=token)


def test_a_page_token_far_beyond(jobs: JobClient, created: list[Any]) -> None:
    jobs.list(page_token="9" * 400)
    assert ids(jobs.list(page_token="0")) == []


def test_a_negative_page_size(jobs: JobClient) -> None:
    with refused(INVALID, "page_size: must not be negative"):
        jobs.list(page_size=-1)


def test_a_job_that_runs_is_listed_with_what_it_has_written(jobs: JobClient) -> None:
    job = jobs.create(spec("echo 12345; sleep 1000", labels={"runs": "yes"}))

    def listed() -> Any:
        (found,) = jobs.list(states=["RUNNING"], labels={"runs": "yes"}).jobs
        return found if found.stdout.total_bytes else None

    found = wait_until(listed, "its output is there")
    assert (found.id, found.stdout.total_bytes, found.HasField("start_time")) == (job.id, 6, True)
    jobs.cancel(job.id, kill=True)
    jobs.watch(job.id)


def test_version_1_commands_are_listed_watched_and_cancelled(serve: Callable[..., ServerProcess]) -> None:
    with grpc.insecure_channel(serve().target) as channel:
        jobs, version_1 = JobClient(channel), Client(channel)
        durable = [jobs.run(spec("true")).job.id for _ in range(3)]
        for code in (0, 3):
            version_1.run(f"echo {code}; exit {code}")
        running = version_1.start("echo running; exec sleep 1000", src="there")
        shown = wait_until(lambda: list(jobs.list(states=["RUNNING"]).jobs), "it runs")
        assert [(job.spec.shell_command, job.spec.source) for job in shown] == [
            ("echo running; exec sleep 1000", "there")
        ]
        everything = jobs.list().jobs
        assert [state(job) for job in everything] == ["RUNNING", "FAILED", "SUCCEEDED", *["SUCCEEDED"] * 3]
        assert everything[1].exit_code == 3
        for size in (1, 2, 3, 4):
            found: list[str] = []
            token = ""
            while True:
                answer = jobs.list(page_size=size, page_token=token)
                found += ids(answer)
                if not (token := answer.next_page_token):
                    break
            assert found == ids(jobs.list()), size
        assert found[3:] == durable[::-1]
        watching = jobs.open_watch(shown[0].id)
        first = next(watching)
        assert state(jobs.cancel(shown[0].id, "enough")) == "RUNNING"
        assert running.result().rc == 137
        watched = Watched()
        JobClient.follow(watched, iter([first, *watching]))
        assert watched.states == ["RUNNING", "CANCELLED"]
        assert jobs.get(shown[0].id).reason == "enough"
        assert jobs.watch(shown[0].id).states == ["CANCELLED", "CANCELLED"]


def test_a_page_is_no_longer_than_clients_take(serve: Callable[..., ServerProcess]) -> None:
    """gRPC clients take 4 MiB, where they are not told otherwise."""
    with grpc.insecure_channel(serve().target) as channel:
        jobs = JobClient(channel)
        created = [jobs.create(spec(f"true {n} {'x' * 130_000}")).id for n in range(50)]
        found: list[str] = []
        token = ""
        while True:
            answer = jobs.list(page_size=1000, page_token=token)
            found += ids(answer)
            if not (token := answer.next_page_token):
                break
        assert found == created[::-1]
