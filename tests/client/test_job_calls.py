"""Creating, finding, listing and cancelling jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from remsvc.client import Client, ConnectionOptions, Job, JobSpec, JobState, OutputSize
from remsvc.command import crc32hex
from remsvc.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    InvalidCommandError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RemSvcError,
    ResourceExhaustedError,
    UnavailableError,
    UnimplementedError,
)
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

from .conftest import DEADLINE, Connect
from .scripted_jobs import ScriptedJobs
from .scripted_server import ScriptedServer

Scripted = Callable[..., ScriptedServer]

SPEC = JobSpec("true")


def options(server: ScriptedJobs) -> ConnectionOptions:
    return ConnectionOptions(server.target).for_jobs()


def details(*messages: object) -> tuple[tuple[str, bytes], ...]:
    status = status_pb2.Status()
    for message in messages:
        status.details.add().Pack(message)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def test_everything_about_a_job_arrives(jobs: ScriptedJobs, connect: Connect) -> None:
    spec = JobSpec(
        shell_command='echo "grün"',
        shell_type="powershell",
        user="ann",
        working_directory="/srv",
        environment={"A": "b=c", "E": ""},
        standard_input=b"\x00\xff",
        time_limit=1.5,
        kill_grace=0,
        output_limit=7,
        labels={"k": "v"},
        source="a test",
        lease=60,
    )
    with connect(options(jobs)) as client:
        job = client.create_job(spec, "id 1")
    (request,) = jobs.asked("CreateJob")
    assert (request.request_id, request.hash) == ("id 1", crc32hex('echo "grün"'))
    assert request.spec == jobs_pb2.JobSpec(
        shell_command='echo "grün"',
        shell_type=jobs_pb2.SHELL_TYPE_POWERSHELL,
        user="ann",
        working_directory="/srv",
        environment={"A": "b=c", "E": ""},
        standard_input=b"\x00\xff",
        time_limit=Duration(seconds=1, nanos=500_000_000),
        kill_grace=Duration(),
        output_limit=7,
        labels={"k": "v"},
        source="a test",
        lease=Duration(seconds=60),
    )
    assert (job.id, job.request_id, job.state, job.ended) == ("job1", "id 1", JobState.RUNNING, False)
    assert job.spec == JobSpec(**{**_fields(spec), "standard_input": b""})


def _fields(spec: JobSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in JobSpec.__dataclass_fields__}


def test_an_argument_list_is_hashed_joined_with_nul(jobs: ScriptedJobs, connect: Connect) -> None:
    with connect(options(jobs)) as client:
        job = client.create_job(JobSpec(argv=("prog", "", "é b")), "1")
    (request,) = jobs.asked("CreateJob")
    assert request.hash == crc32hex("prog\0\0é b")
    assert list(request.spec.argv.args) == ["prog", "", "é b"]
    assert (job.spec.argv, job.spec.shell_command) == (("prog", "", "é b"), None)


def test_a_job_that_has_ended_is_read_whole(jobs: ScriptedJobs, connect: Connect) -> None:
    scripted = jobs.add(b"0123456789", b"e", request_id="r", identity="ann")
    scripted.message.start_time.FromJsonString("2030-01-31T12:00:00.000001Z")
    scripted.message.expire_time.FromJsonString("2030-02-28T12:00:00Z")
    scripted.message.stdout.MergeFrom(jobs_pb2.Output(dropped_bytes=4, head_bytes=3))
    jobs.change(scripted, jobs_pb2.FAILED, exit_code=137, signal=9, reason="why")
    scripted.message.end_time.FromJsonString("2030-01-31T12:00:01Z")
    with connect(options(jobs)) as client:
        job = client.get_job("job1")
        assert client.get_job(request_id="r") == job
    assert job == Job(
        id="job1",
        request_id="r",
        identity="ann",
        spec=JobSpec(),
        state=JobState.FAILED,
        exit_code=137,
        signal=9,
        reason="why",
        created_at=job.created_at,
        started_at=datetime(2030, 1, 31, 12, 0, 0, 1, timezone.utc),
        ended_at=datetime(2030, 1, 31, 12, 0, 1, 0, timezone.utc),
        expires_at=datetime(2030, 2, 28, 12, 0, 0, 0, timezone.utc),
        stdout=OutputSize(total=10, dropped=4, head=3),
        stderr=OutputSize(total=1, dropped=0, head=1),
    )
    assert job.ended


def test_an_exit_code_of_0_is_told_from_none(jobs: ScriptedJobs, connect: Connect) -> None:
    ended, running = jobs.finish(), jobs.add()
    with connect(options(jobs)) as client:
        assert client.get_job(ended.message.id).exit_code == 0
        assert client.get_job(running.message.id).exit_code is None


def test_bad_requests_are_refused_before_anything_is_sent(connect: Connect) -> None:
    with connect(ConnectionOptions("127.0.0.1:1")) as client:
        calls: list[tuple[Callable[[], object], str]] = [
            (lambda: client.create_job(JobSpec(" "), "1"), "shell_command must not be blank"),
            (lambda: client.create_job(SPEC, ""), "request_id must have 1 to 128"),
            (lambda: client.get_job(""), "the job's id must not be empty"),
            (lambda: client.get_job(), "exactly one of the job's id and its request_id"),
            (lambda: client.get_job("1", request_id="2"), "exactly one of the job's id and its request_id"),
            (lambda: client.cancel_job(""), "the job's id must not be empty"),
            (lambda: next(client.watch_job("")), "the job's id must not be empty"),
            (lambda: next(client.list_jobs(page_size=0)), "page_size must be 1 to 1000"),
            (
                lambda: next(client.list_jobs(created_after=datetime(2030, 1, 1))),  # noqa: DTZ001
                "created_after must have a time zone",
            ),
        ]
        for call, message in calls:
            with pytest.raises(InvalidCommandError, match=message):
                call()


def test_jobs_are_listed_page_by_page(jobs: ScriptedJobs, connect: Connect) -> None:
    for number in range(7):
        jobs.add(spec=jobs_pb2.JobSpec(shell_command="x", labels={"odd": str(number % 2), "all": "1"}))
    jobs.finish()
    with connect(options(jobs)) as client:
        assert [job.id for job in client.list_jobs(page_size=3)] == [f"job{n}" for n in range(8, 0, -1)]
        assert [request.page_size for request in jobs.asked("ListJobs")] == [3, 3, 3]
        odd = client.list_jobs(labels={"odd": "1", "all": "1"}, states=[JobState.RUNNING])
        assert [job.id for job in odd] == ["job6", "job4", "job2"]
        assert [job.id for job in client.list_jobs(states=[JobState.SUCCEEDED, JobState.LOST])] == ["job8"]
        now = datetime.now(timezone.utc)
        assert len(list(client.list_jobs(created_after=now - timedelta(hours=1)))) == 8
        assert list(client.list_jobs(created_after=now + timedelta(hours=1))) == []


def test_only_the_pages_that_are_wanted_are_asked_for(jobs: ScriptedJobs, connect: Connect) -> None:
    for _ in range(5):
        jobs.add()
    with connect(options(jobs)) as client:
        assert next(client.list_jobs(page_size=2)).id == "job5"
    assert len(jobs.asked("ListJobs")) == 1


def test_cancelling_says_how_and_why(jobs: ScriptedJobs, connect: Connect) -> None:
    jobs.add()
    with connect(options(jobs)) as client:
        assert client.cancel_job("job1", reason="because", kill=True).id == "job1"
        assert client.cancel_job("job1").id == "job1"
    first, second = jobs.asked("CancelJob")
    assert (first.id, first.reason, first.kill) == ("job1", "because", True)
    assert (second.reason, second.kill) == ("", False)


def test_what_is_not_there_is_told(jobs: ScriptedJobs, connect: Connect) -> None:
    with connect(options(jobs)) as client:
        for call in (
            lambda: client.get_job("nope"),
            lambda: client.cancel_job("nope"),
            lambda: list(client.watch_job("nope")),
        ):
            with pytest.raises(NotFoundError, match="there is no such job"):
                call()


def test_a_reused_request_id_names_the_job(jobs: ScriptedJobs, connect: Connect) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="REQUEST_ID_REUSED", domain="d", metadata={"job": "job7", "other": "x"}
    )
    metadata = details(error_details_pb2.RetryInfo(), info)
    jobs.refusals["CreateJob"] = [(grpc.StatusCode.ALREADY_EXISTS, "other content", metadata)]
    with connect(options(jobs)) as client, pytest.raises(AlreadyExistsError, match="other content") as caught:
        client.create_job(SPEC, "1")
    assert caught.value.job_id == "job7"
    assert len(jobs.requests) == 1, "not tried again"


def test_a_full_queue_says_when_to_come_back(jobs: ScriptedJobs, connect: Connect) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    jobs.refusals["CreateJob"] = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", details(retry))]
    with connect(options(jobs)) as client, pytest.raises(ResourceExhaustedError) as caught:
        client.create_job(SPEC, "1")
    assert caught.value.retry_after == 2.5
    assert len(jobs.requests) == 1, "not tried again"


@pytest.mark.parametrize("garbage", [b"", b"\xff\xff", b"\x1a\x02\x0a\x7f", b"\x1a\x04\x0a\x02\xff\xfe"])
def test_details_that_cannot_be_read_do_not_matter(
    jobs: ScriptedJobs, connect: Connect, garbage: bytes
) -> None:
    metadata = (("grpc-status-details-bin", garbage),)
    jobs.refusals["CreateJob"] = [
        (grpc.StatusCode.ALREADY_EXISTS, "other content", metadata),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", metadata),
        (grpc.StatusCode.ALREADY_EXISTS, "other content", ()),
    ]
    with connect(options(jobs)) as client:
        with pytest.raises(AlreadyExistsError) as reused:
            client.create_job(SPEC, "1")
        assert reused.value.job_id is None
        with pytest.raises(ResourceExhaustedError) as full:
            client.create_job(SPEC, "1")
        assert full.value.retry_after is None
        with pytest.raises(AlreadyExistsError):
            client.create_job(SPEC, "1")


@pytest.mark.parametrize("method", ["CreateJob", "CancelJob"])
def test_a_lost_answer_is_asked_for_again(jobs: ScriptedJobs, connect: Connect, method: str) -> None:
    jobs.unanswered[method] = 2
    if method == "CancelJob":
        jobs.add()
    with connect(options(jobs)) as client:
        call = {
            "CreateJob": lambda: client.create_job(SPEC, "1"),
            "CancelJob": lambda: client.cancel_job("job1"),
        }
        assert call[method]().id == "job1"
    assert len(jobs.asked(method)) == 3
    assert len(jobs.jobs) == 1


@pytest.mark.parametrize("method", ["CreateJob", "CancelJob"])
def test_a_call_that_a_server_gives_up_as_it_ends_is_made_again(
    jobs: ScriptedJobs, connect: Connect, method: str
) -> None:
    jobs.refusals[method] = [(grpc.StatusCode.CANCELLED, "CANCELLED", ())] * 2
    if method == "CancelJob":
        jobs.add()
    with connect(options(jobs)) as client:
        call = {
            "CreateJob": lambda: client.create_job(SPEC, "1"),
            "CancelJob": lambda: client.cancel_job("job1"),
        }
        assert call[method]().id == "job1"
    assert len(jobs.asked(method)) == 3


@pytest.mark.parametrize("method", ["CreateJob", "CancelJob"])
def test_a_caller_who_repeats_calls_by_rules_of_his_own_gets_one_attempt(
    jobs: ScriptedJobs, connect: Connect, method: str
) -> None:
    jobs.unanswered[method] = 1
    if method == "CancelJob":
        jobs.add()
    with connect(options(jobs)) as client:
        call = {
            "CreateJob": lambda: client.create_job(SPEC, "1", repeat=False),
            "CancelJob": lambda: client.cancel_job("job1", repeat=False),
        }
        with pytest.raises(UnavailableError, match="the answer is lost") as caught:
            call[method]()
        assert caught.value.sent
        assert len(jobs.asked(method)) == 1
        assert call[method]().id == "job1"


def test_closing_the_client_ends_a_call_that_is_made_again(jobs: ScriptedJobs) -> None:
    jobs.silent.add("CreateJob")
    with Client(options(jobs)) as client, ThreadPoolExecutor(1) as thread:
        creation = thread.submit(client.create_job, SPEC, "1")
        while not jobs.asked("CreateJob"):
            time.sleep(0.01)
        client.close()
        with pytest.raises(RemSvcError, match="the client is closed"):
            creation.result(DEADLINE)
    assert len(jobs.asked("CreateJob")) == 1


def test_asking_again_ends_with_the_time_limit(jobs: ScriptedJobs, connect: Connect) -> None:
    refusal = (grpc.StatusCode.UNAVAILABLE, "shutting down", ())
    jobs.refusals["CreateJob"] = [refusal] * 1000
    with connect(options(jobs)) as client:
        started = time.monotonic()
        with pytest.raises((UnavailableError, DeadlineExceededError)) as caught:
            client.create_job(SPEC, "1", timeout=2.0)
        assert caught.value.sent
        assert time.monotonic() - started < DEADLINE
    assert 2 <= len(jobs.requests) < 20


def test_a_server_that_does_not_answer_runs_into_the_time_limit(jobs: ScriptedJobs, connect: Connect) -> None:
    with connect(options(jobs)) as client:
        client.create_job(SPEC, "1")
        jobs.silent.add("CreateJob")
        with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.5 s") as caught:
            client.create_job(SPEC, "2", timeout=0.5)
        assert caught.value.sent


def test_a_server_that_is_not_there_fails_at_once(connect: Connect) -> None:
    with connect(ConnectionOptions("127.0.0.1:1")) as client:
        with pytest.raises(UnavailableError, match="nothing listens") as caught:
            client.create_job(SPEC, "1")
        assert not caught.value.sent
        with pytest.raises(UnavailableError):
            client.get_job("1")


def test_creating_goes_on_through_a_restart(jobs: ScriptedJobs, connect: Connect) -> None:
    with connect(options(jobs)) as client:
        client.get_job(jobs.add().message.id)
        jobs.unanswered["CreateJob"] = 1

        def restart() -> None:
            while not jobs.asked("CreateJob"):
                time.sleep(0.01)
            jobs.stop()
            jobs.start()

        restarter = threading.Thread(target=restart)
        restarter.start()
        job = client.create_job(SPEC, "1")
        restarter.join()
    assert len(jobs.jobs) == 2
    assert job.id == "job2"


def test_a_refusal_is_not_tried_again(jobs: ScriptedJobs, connect: Connect) -> None:
    refusal = (grpc.StatusCode.PERMISSION_DENIED, "command denied by denylist", ())
    jobs.refusals["CreateJob"] = [refusal]
    with connect(options(jobs)) as client, pytest.raises(PermissionDeniedError, match="denylist"):
        client.create_job(SPEC, "1")
    assert len(jobs.requests) == 1


def test_a_version_1_server_is_told(scripted: Scripted, connect: Connect) -> None:
    with connect(ConnectionOptions(scripted().target)) as client:
        for call in (
            lambda: client.create_job(SPEC, "1"),
            lambda: client.get_job("1"),
            lambda: list(client.list_jobs()),
            lambda: client.cancel_job("1"),
            lambda: list(client.watch_job("1")),
        ):
            with pytest.raises(UnimplementedError):
                call()


def test_a_state_of_a_later_version_is_an_error(jobs: ScriptedJobs, connect: Connect) -> None:
    jobs.add(state=77)
    with (
        connect(options(jobs)) as client,
        pytest.raises(ProtocolError, match="job1 has the unknown state 77"),
    ):
        client.get_job("job1")
