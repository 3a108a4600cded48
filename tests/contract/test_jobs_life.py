"""How a job fares, as ``GetJob``, ``WatchJob`` and ``CancelJob`` tell it."""

from __future__ import annotations

import os
import pwd
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from .commands import posix_only
from .jobs import JobClient, Watched, new_request_id, refused, spec, state
from .processes import open_descriptors
from .waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = posix_only

NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., ServerProcess]) -> ServerProcess:
    return serve_module()


@pytest.fixture(scope="module")
def jobs(server: ServerProcess) -> Iterator[JobClient]:
    with grpc.insecure_channel(server.target) as channel:
        yield JobClient(channel)


@pytest.mark.parametrize(
    ("message", "name", "code", "signal", "reason"),
    [
        (spec("true"), "SUCCEEDED", 0, 0, ""),
        (spec("exit 7"), "FAILED", 7, 0, ""),
        (spec("kill -KILL $$"), "FAILED", 137, 9, "ended by signal 9"),
        (spec(None, "/no/such"), "FAILED", None, 0, "No such file or directory: /no/such"),
        (spec("true", user="no-such-user"), "FAILED", None, 0, "user not found: no-such-user"),
        (
            spec("true", working_directory="/no/such"),
            "FAILED",
            None,
            0,
            "No such file or directory: /no/such",
        ),
        (spec("exec sleep 100", time_limit=0.3), "TIMED_OUT", 143, 15, "its time limit of 0.3 s was reached"),
        (spec("Get-Date", shell_type=2), "FAILED", None, 0, "PowerShell (pwsh) is not installed"),
    ],
    ids=["true", "exit 7", "signal", "no program", "no user", "no folder", "time limit", "no pwsh"],
)
def test_how_it_ended(
    jobs: JobClient, message: Any, name: str, code: int | None, signal: int, reason: str
) -> None:
    if message.shell_type == 2 and shutil.which("pwsh"):
        pytest.skip("PowerShell is installed")
    job = jobs.run(message).job
    assert (state(job), job.signal) == (name, signal)
    assert job.reason.startswith(reason)
    assert bool(job.reason) == bool(reason)
    assert (job.exit_code if job.HasField("exit_code") else None) == code
    assert job.HasField("end_time")
    assert jobs.get(job.id) == job
    assert jobs.cancel(job.id) == job


def test_output_is_bytes_in_two_streams(jobs: JobClient) -> None:
    watched = jobs.run(spec(r"printf 'a\000\377b'; printf 'c\303' >&2"))
    assert (watched.stdout, watched.stderr) == (b"a\0\xffb", b"c\xc3")
    for output, size in ((watched.job.stdout, 4), (watched.job.stderr, 2)):
        assert (output.total_bytes, output.dropped_bytes, output.head_bytes) == (size, 0, size)


def test_the_home_directory_is_where_it_starts(jobs: JobClient) -> None:
    home = pwd.getpwuid(os.geteuid()).pw_dir
    expected = home if os.access(home, os.X_OK) else "/"
    assert jobs.run(spec("pwd")).stdout.decode() == f"{expected}\n"


def test_watching_from_any_offset(jobs: JobClient) -> None:
    job = jobs.create(spec("seq 1 100000; seq 1 10 >&2"))
    whole = jobs.watch(job.id)
    assert whole.stdout == b"".join(b"%d\n" % n for n in range(1, 100_001))
    for offset in (1, 1000, len(whole.stdout) - 1, len(whole.stdout), len(whole.stdout) + 10):
        watched = jobs.watch(job.id, offset, -1)
        assert watched.stdout == whole.stdout[offset:]
        assert watched.stderr == b""
    watched = jobs.watch(job.id, -1, 5)
    assert (watched.stdout, watched.stderr) == (b"", whole.stderr[5:])
    watched = jobs.watch(job.id, -(2**63), -5)
    assert (watched.stdout, watched.stderr) == (b"", b"")
    assert watched.states == ["SUCCEEDED", "SUCCEEDED"]


def test_what_is_over_the_limit_is_dropped_and_said(jobs: JobClient) -> None:
    total = 5_000_000
    job = jobs.create(spec(f"head -c {total} /dev/zero | tr '\\0' x; echo end", output_limit=1000))
    watched = jobs.watch(job.id)
    output = jobs.get(job.id).stdout
    assert output.total_bytes == total + 4
    assert output.head_bytes == 500
    assert output.dropped_bytes > 3_000_000
    after = jobs.watch(job.id)
    assert len(after.stdout) == output.total_bytes - output.dropped_bytes
    assert after.gaps == [("stdout", 500, 500 + output.dropped_bytes)]
    assert after.stdout.endswith(b"xxxend\n")
    # A watch that was there from the start may have seen more, never something else.
    assert len(watched.stdout) >= len(after.stdout)
    assert set(watched.stdout[:-5]) == {ord("x")}
    for offset in (499, 500, 501, 500 + output.dropped_bytes - 1, 500 + output.dropped_bytes):
        watched = jobs.watch(job.id, offset)
        start = offset if not 500 <= offset < 500 + output.dropped_bytes else 500 + output.dropped_bytes
        tail = output.total_bytes - 500 - output.dropped_bytes
        assert len(watched.stdout) == (1 + tail if offset == 499 else output.total_bytes - start)


def test_output_comes_at_once_and_each_state_once(jobs: JobClient, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    call = jobs.open_watch(jobs.create(spec(f"echo first; read line < {go}; echo second >&2")).id)
    messages = []
    while not messages or messages[-1].WhichOneof("event") == "job":
        messages.append(next(call))
    assert messages[-1].stdout.data == b"first\n"
    go.write_text("now\n")
    watched = Watched()
    JobClient.follow(watched, iter([*messages, *call]))
    assert watched.stderr == b"second\n"
    assert watched.states in (["RUNNING", "SUCCEEDED"], ["QUEUED", "RUNNING", "SUCCEEDED"])


def test_cancel(jobs: JobClient) -> None:
    job = jobs.create(spec("exec sleep 1000"))
    answer = jobs.cancel(job.id, "because")
    assert answer.id == job.id
    ended = jobs.watch(job.id).job
    assert (state(ended), ended.reason) == ("CANCELLED", "because")
    assert jobs.cancel(job.id, "again") == ended


def test_cancel_without_a_reason_says_by_whom(jobs: JobClient) -> None:
    job = jobs.create(spec("sleep 1000"))
    jobs.cancel(job.id)
    assert jobs.watch(job.id).job.reason == "cancelled by anonymous"


def test_kill(jobs: JobClient) -> None:
    job = jobs.create(spec("trap '' TERM; echo ready; sleep 1000; sleep 1000", kill_grace=1000))
    call = jobs.open_watch(job.id)
    while next(call).WhichOneof("event") != "stdout":
        pass
    call.cancel()
    jobs.cancel(job.id, kill=True)
    ended = jobs.watch(job.id).job
    assert (state(ended), ended.signal, ended.exit_code) == ("CANCELLED", 9, 137)


def test_get_by_id_and_by_request(jobs: JobClient) -> None:
    request_id = new_request_id()
    job = jobs.run(spec("true")).job
    job = jobs.watch(jobs.create(spec("true"), request_id).id).job
    assert jobs.get(job.id) == jobs.get(request_id=request_id) == job


def test_what_is_not_there(jobs: JobClient) -> None:
    for name in ("", "no-such-job", "é" * 1000, "../../journal.sqlite"):
        with refused(NOT_FOUND, "there is no job"):
            jobs.cancel(name)
        with refused(NOT_FOUND, "there is no job"):
            list(jobs.open_watch(name))
        if name:
            with refused(NOT_FOUND, "there is no job"):
                jobs.get(name)
            with refused(NOT_FOUND, "there is no job"):
                jobs.get(request_id=name)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "expected id or request_id"):
        jobs.get()


def test_watches_that_are_given_up_leave_nothing(jobs: JobClient, server: ServerProcess) -> None:
    job = jobs.create(spec("while :; do echo line; sleep 0.01; done"))
    before = open_descriptors(server.process.pid)
    for number in range(50):
        call = jobs.open_watch(job.id)
        for _ in range(number % 4):
            next(call)
        call.cancel()
    wait_until(lambda: open_descriptors(server.process.pid) <= before, "its descriptors are closed")
    assert state(jobs.get(job.id)) == "RUNNING"
    jobs.cancel(job.id, kill=True)
    assert state(jobs.watch(job.id).job) == "CANCELLED"


def test_a_slow_reader_costs_the_server_no_memory(jobs: JobClient, server: ServerProcess) -> None:
    from .processes import memory

    job = jobs.create(spec("head -c 200000000 /dev/zero", output_limit=300_000_000))
    call = jobs.open_watch(job.id)
    next(call)
    wait_until(lambda: state(jobs.get(job.id)) == "SUCCEEDED", "it has ended")
    assert memory(server.process.pid) < 150_000_000
    size = sum(len(message.stdout.data) for message in call)
    assert size == 200_000_000


def test_many_jobs_and_many_watches_at_once(jobs: JobClient) -> None:
    results: list[bytes] = []

    def run(number: int) -> None:
        results.append(jobs.run(spec(f"sleep 0.1; echo {number}")).stdout)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(b"%d\n" % number for number in range(60))


def test_a_call_that_was_cancelled_while_it_created_a_job(jobs: JobClient, tmp_path: Path) -> None:
    """The client has gone; asked again by whoever, the job runs, once."""
    for number in range(30):
        message = spec(f"echo {number} >> {tmp_path}/log", standard_input=b"x" * 1000)
        request_id = new_request_id()
        call = jobs.start_create(message, request_id)
        time.sleep(number / 10_000)
        call.cancel()
        watched = jobs.watch(jobs.create(message, request_id).id)
        assert watched.states[-1] == "SUCCEEDED"
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(30)]
