"""What was asked for before a revocation and would start after it: nothing of it runs."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.conftest import Serve
from tests.contract.client import bearer, command, refused
from tests.contract.jobs import JobClient, spec, state
from tests.contract.waiting import go_file, wait_until

from .conftest import DEADLINE, Call, RunningServer, Start, Tokens, posix_only

pytestmark = [posix_only, pytest.mark.timeout(300)]

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
ENDED = "the credentials of this call have been revoked or have expired"
ONE_AT_A_TIME = "[server]\nport = 0\ntoken_file = {tokens}\n[jobs]\nmax_running = 1\nadmins = root\n"


# Jobs that wait


def test_a_waiting_job_of_an_identity_that_is_gone_does_not_start(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path
) -> None:
    etl, root = tokens.add("etl"), tokens.add("root")
    server = start(ONE_AT_A_TIME)
    caller, admin = call(server, etl).jobs, call(server, root).jobs
    running = caller.create(spec(go_file(tmp_path / "go")))
    waiting = caller.create(spec(f"touch {tmp_path}/ran"))
    others = admin.create(spec("echo of root"))
    assert [state(job) for job in (running, waiting, others)] == ["RUNNING", "QUEUED", "QUEUED"]
    tokens.revoke(0)
    server.reload()
    (tmp_path / "go").touch()
    watched = admin.watch(waiting.id)
    assert "RUNNING" not in watched.states
    assert watched.states[-1] == "FAILED"
    assert watched.job.reason == "not permitted any more: there is no identity etl any more"
    assert not watched.job.HasField("start_time")
    assert admin.watch(others.id).stdout == b"of root\n", "it holds up nobody"
    assert admin.watch(running.id).states[-1] == "SUCCEEDED", "what runs goes on"
    assert not (tmp_path / "ran").exists()


def test_nor_after_a_restart(serve: Serve, call: Call, tokens: Tokens, tmp_path: Path) -> None:
    etl, root = tokens.add("etl"), tokens.add("root")
    text = ONE_AT_A_TIME.replace("{tokens}", str(tokens.path))
    first = serve(text, "--state-dir", str(tmp_path / "state"))
    caller = call(RunningServer(first, tmp_path), etl).jobs
    caller.create(spec(go_file(tmp_path / "go")))
    waiting = caller.create(spec(f"touch {tmp_path}/ran"))
    first.kill()
    tokens.revoke(0)
    second = serve(text, "--state-dir", str(tmp_path / "state"))
    (tmp_path / "go").touch()
    watched = call(RunningServer(second, tmp_path), root).jobs.watch(waiting.id)
    assert watched.states[-1] == "FAILED"
    assert "there is no identity etl" in watched.job.reason
    assert not (tmp_path / "ran").exists()


def test_a_waiting_job_outlives_the_token_that_asked_for_it(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path
) -> None:
    """Tokens are rotated: the identity is there as long as it has one."""
    old, new = tokens.add("etl"), tokens.add("etl")
    server = start(ONE_AT_A_TIME)
    caller = call(server, old).jobs
    caller.create(spec(go_file(tmp_path / "go")))
    waiting = caller.create(spec("echo ran"))
    tokens.revoke(0)
    server.reload()
    (tmp_path / "go").touch()
    assert call(server, new).jobs.watch(waiting.id).stdout == b"ran\n"


def test_a_waiting_job_of_an_identity_whose_tokens_have_expired_does_not_start(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path
) -> None:
    expires = time.time() + 10
    etl, root = tokens.add("etl", expires), tokens.add("root")
    server = start(ONE_AT_A_TIME)
    caller = call(server, etl).jobs
    caller.create(spec(go_file(tmp_path / "go")))
    waiting = caller.create(spec(f"touch {tmp_path}/ran"))
    wait_until(lambda: time.time() > expires, "the token has expired", DEADLINE)
    (tmp_path / "go").touch()
    watched = call(server, root).jobs.watch(waiting.id)
    assert watched.states[-1] == "FAILED"
    assert "there is no identity etl" in watched.job.reason
    assert not (tmp_path / "ran").exists()


# Jobs that start at once


@contextlib.contextmanager
def held_journal(state_dir: Path) -> Iterator[None]:
    """Within, nothing can be written into the journal: what is claimed waits for that."""
    connection = sqlite3.connect(state_dir / "journal.sqlite", isolation_level=None, timeout=DEADLINE)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@pytest.fixture
def audited(serve: Serve, tmp_path: Path) -> Callable[..., RunningServer]:
    """``audited(sections)``: a server whose audit log is ``audit``, and whose state directory ``state``."""

    def start_server(sections: str, in_server: str = "") -> RunningServer:
        text = f"[server]\nport = 0\n{in_server}[audit]\nfile = {tmp_path}/audit\n{sections}"
        process = serve(text, "--state-dir", str(tmp_path / "state"))
        return RunningServer(process, process.stderr_path.with_suffix(".ini"))

    return start_server


def create_held(server: RunningServer, jobs: JobClient, tmp_path: Path, change: Callable[[], object]) -> Any:
    """A CreateJob that was decided on and waits for the disk while ``change`` is made and taken in."""
    with held_journal(tmp_path / "state"):
        creating = jobs.start_create(spec(f"touch {tmp_path}/ran", standard_input=b"x"), "held")
        # Written once all is decided, right before the claim.
        given = (tmp_path / "state" / "jobs").glob
        wait_until(lambda: [*given("*/stdin")], "the claim", DEADLINE)
        change()
        server.reload()
    return creating


def test_a_job_that_starts_at_once_sees_a_policy_that_has_changed_meanwhile(
    audited: Callable[..., RunningServer], call: Call, tmp_path: Path
) -> None:
    auth = "[auth]\netl = te\n"
    server = audited(auth)
    jobs = call(server, "te").jobs
    denied = server.config.read_text() + "[identity etl]\ndeny.1 = touch\n"
    creating = create_held(server, jobs, tmp_path, lambda: server.write(denied))
    watched = jobs.watch(creating.result().id)
    assert watched.states[-1] == "FAILED"
    assert watched.job.reason.startswith("not permitted any more: command denied by denylist")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [True, False])
def test_a_job_that_starts_at_once_sees_that_its_caller_is_revoked(
    audited: Callable[..., RunningServer], call: Call, tokens: Tokens, tmp_path: Path, kept: bool
) -> None:
    """Also where the identity keeps another token: the stolen one has no job started any more."""
    stolen, root = tokens.add("etl"), tokens.add("root")
    if kept:
        tokens.add("etl")
    server = audited("[jobs]\nadmins = root\n", f"token_file = {tokens.path}\n")
    jobs = call(server, stolen).jobs
    creating = create_held(server, jobs, tmp_path, lambda: tokens.revoke(0))
    with refused(UNAUTHENTICATED, ENDED):
        creating.result()
    admin = call(server, root).jobs
    after = admin.run(spec("true")).job  # written down after the one before, which has begun by now, or never
    (held,) = (job for job in admin.list().jobs if job.id != after.id)
    watched = admin.watch(held.id)
    assert watched.states[-1] == "FAILED"
    assert watched.job.reason == f"not permitted any more: {ENDED}"
    assert not (tmp_path / "ran").exists()


# Calls that were open


def test_a_running_single_command_ends_with_its_token(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path
) -> None:
    token = tokens.add("etl")
    server = start()
    pid_file = tmp_path / "pid"
    running = call(server, token).client.start(
        f"echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    )
    wait_until(pid_file.exists, "the command", DEADLINE)
    tokens.revoke(0)
    server.reload()
    with refused(UNAUTHENTICATED, ENDED):
        running.result(timeout=DEADLINE)
    wait_until(lambda: not psutil.pid_exists(int(pid_file.read_text())), "the command's end", DEADLINE)


@pytest.mark.parametrize("method", ["RemCmd", "RemCmdStrm", "CreateJob", "WatchJob"])
def test_a_call_that_was_opened_before_is_refused_when_its_request_comes_later(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path, method: str
) -> None:
    """The caller sends headers at once, and the request when its token is gone."""
    etl, root = tokens.add("etl"), tokens.add("root")
    server = start()
    caller = call(server, etl)
    job = caller.jobs.create(spec("sleep 1000"))
    touch = f"touch {tmp_path}/ran"
    request: Any = {
        "RemCmd": command(touch),
        "RemCmdStrm": command(touch),
        "CreateJob": jobs_pb2.CreateJobRequest(request_id="late", spec=spec(touch)),
        "WatchJob": jobs_pb2.WatchJobRequest(id=job.id),
    }[method]
    service = "RS.RemSvc" if method.startswith("RemCmd") else "remsvc.jobs.v1.JobService"
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    opened = caller.channel.stream_stream(
        f"/{service}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=lambda data: data,
    )(iter(requests.get, None), timeout=DEADLINE, metadata=bearer(etl))
    caller.client.ping()  # on the same connection, so the call has arrived
    tokens.revoke(0)
    server.reload()
    requests.put(request)
    requests.put(None)
    with refused(UNAUTHENTICATED):
        list(opened)
    call(server, root).client.ping()
    assert not (tmp_path / "ran").exists()
