"""How much there may be of jobs; where they are kept; and a server without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from remsvc.execution.supervisor.cgroup import find_parent

from .client import Client, bearer
from .commands import posix_only
from .jobs import JobClient, refused, spec, state
from .waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = posix_only

Serve = Callable[..., "ServerProcess"]


def test_a_full_server_says_when_to_come_back(serve: Serve) -> None:
    config = "[jobs]\nmax_running = 2\nmax_queued = 1\n"
    with grpc.insecure_channel(serve(config).target) as channel:
        jobs = JobClient(channel)
        running = [jobs.create(spec("exec sleep 1000"), f"r{n}") for n in range(2)]
        waiting = jobs.create(spec("echo at last"), "waiting")
        assert [state(job) for job in (*running, waiting)] == ["RUNNING", "RUNNING", "QUEUED"]
        assert not waiting.HasField("start_time")
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "1 jobs are waiting already") as refusal:
            jobs.create(spec("true"), "one too many")
        assert 0 < refusal.retry_info.retry_delay.ToNanoseconds() <= 60_000_000_000
        with refused(grpc.StatusCode.NOT_FOUND):
            jobs.get(request_id="one too many")
        # What is there already is still found, and a reused id is still told.
        assert jobs.create(spec("echo at last"), "waiting").id == waiting.id
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            jobs.create(spec("echo other"), "waiting")
        jobs.cancel(running[0].id)
        watched = jobs.watch(waiting.id)
        assert watched.states[-2:] == ["RUNNING", "SUCCEEDED"]
        assert watched.stdout == b"at last\n"
        jobs.cancel(running[1].id, kill=True)


def test_identities_take_turns(serve: Serve, tmp_path: Path) -> None:
    config = "[auth]\nalice = ta\nbob = tb\n[jobs]\nmax_running = 1\n"
    with grpc.insecure_channel(serve(config).target) as channel:
        alice, bob = JobClient(channel, bearer("ta")), JobClient(channel, bearer("tb"))
        blocker = alice.create(spec("exec sleep 1000"))
        hers = [alice.create(spec(f"echo alice >> {tmp_path}/log")) for _ in range(4)]
        his = bob.create(spec(f"echo bob >> {tmp_path}/log"))
        alice.cancel(blocker.id)
        bob.watch(his.id)
        for job in hers:
            alice.watch(job.id)
    assert (tmp_path / "log").read_text().split() == ["alice", "bob", "alice", "alice", "alice"]


def test_a_server_without_jobs_is_a_version_1_server(serve: Serve) -> None:
    server = serve("[jobs]\nenabled = false\n")
    with grpc.insecure_channel(server.target) as channel:
        jobs = JobClient(channel)
        for call in (
            lambda: jobs.create(spec("true")),
            lambda: jobs.get("x"),
            lambda: jobs.list(),
            lambda: jobs.cancel("x"),
            lambda: list(jobs.open_watch("x")),
        ):
            with refused(grpc.StatusCode.UNIMPLEMENTED):
                call()
        assert Client(channel).run("echo fine").out == "fine\n"


@pytest.mark.parametrize("enabled", ["true", "false"])
@pytest.mark.parametrize("cgroup", ["auto", "off"])
def test_version_1_needs_no_jobs_for_its_control_groups(
    serve: Serve, remsvc: Callable[..., Any], enabled: str, cgroup: str
) -> None:
    server = serve(f"[jobs]\nenabled = {enabled}\ncgroup = {cgroup}\n")
    expected = "cgroup" if cgroup == "auto" and find_parent("") is not None else "parentage"
    assert f"process_trees={expected}" in remsvc("status", "-s", server.target).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("milliseconds", "answer"), [(20_000, "got a\n"), (0, "")])
def test_version_1_needs_no_jobs_to_wait_for_output(serve: Serve, milliseconds: int, answer: str) -> None:
    server = serve(f"[jobs]\nenabled = false\noutput_wait_ms = {milliseconds}\n")
    script = "exec > >(read line; sleep 1; echo got $line); echo a"
    with grpc.insecure_channel(server.target) as channel:
        assert Client(channel).run(f"exec bash -c '{script}'").out == answer


def serve_and_wait(*flags: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    result = subprocess.run(
        [sys.executable, "-m", "remsvc", "serve", "--port", "0", *flags],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return result.returncode, result.stderr


def test_two_servers_cannot_share_a_state_directory(serve: Serve, tmp_path: Path) -> None:
    state_dir = str(tmp_path / "shared")
    server = serve("", "--state-dir", state_dir)
    code, stderr = serve_and_wait("--state-dir", state_dir)
    assert code == 255
    assert "another server uses this state directory" in stderr
    with grpc.insecure_channel(server.target) as channel:
        assert JobClient(channel).run(spec("echo fine")).stdout == b"fine\n"
    server.kill()
    server = serve("", "--state-dir", state_dir)  # the lock went with it
    with grpc.insecure_channel(server.target) as channel:
        assert len(JobClient(channel).list().jobs) == 1


def test_where_the_default_is_in_use_version_1_is_served(tmp_path: Path) -> None:
    """Somebody who tries a second server wants a server; whoever names a directory wants that one."""
    env = {"XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    processes: list[subprocess.Popen[str]] = []
    logs = []
    try:
        for number in range(2):
            log = (tmp_path / f"log{number}").open("w+")
            logs.append(log)
            process = subprocess.Popen(
                [sys.executable, "-m", "remsvc", "serve", "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **env},
            )
            processes.append(process)
            assert process.stdout is not None
            target = process.stdout.readline().removeprefix("listening on ").strip()
            with grpc.insecure_channel(target) as channel:
                assert Client(channel).run("echo fine").out == "fine\n"
                jobs = JobClient(channel)
                if number == 0 and not _default_is_below(tmp_path):
                    pytest.skip("root's default is /var/lib/remsvc, which a test must not use")
                if number == 0:
                    assert jobs.run(spec("echo durable")).stdout == b"durable\n"
                else:
                    with refused(grpc.StatusCode.UNIMPLEMENTED):
                        jobs.list()
        assert "WARNING" in (text := (tmp_path / "log1").read_text())
        assert "no durable jobs" in text
        assert "--state-dir" in text
    finally:
        for process in processes:
            process.terminate()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()
        for log in logs:
            log.close()


def _default_is_below(folder: Path) -> bool:
    return (folder / "remsvc").exists()


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_state_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    code, stderr = serve_and_wait("--state-dir", str(folder))
    assert code == 255
    assert "no one else may write to" in stderr


def test_a_journal_that_cannot_be_used_stops_the_server_with_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "journal.sqlite").write_bytes(b"not a journal" * 1000)
    code, stderr = serve_and_wait("--state-dir", str(folder))
    assert code == 255
    assert "journal.sqlite: file is not a database" in stderr
    assert "Traceback" not in stderr


# Shutting down, and coming back


def test_a_server_that_shuts_down_ends_watches_and_the_job_goes_on(serve: Serve, tmp_path: Path) -> None:
    state_dir, go = tmp_path / "state", tmp_path / "go"
    os.mkfifo(go)
    server = serve("[server]\nshutdown_grace_ms = 20000\n", "--state-dir", str(state_dir))
    with grpc.insecure_channel(server.target) as channel:
        jobs = JobClient(channel)
        job = jobs.create(spec(f"echo one; read line < {go}; echo two"), "once")
        call = jobs.open_watch(job.id)
        while next(call).WhichOneof("event") != "stdout":
            pass
        started = time.monotonic()
        server.process.terminate()
        with refused(grpc.StatusCode.UNAVAILABLE, "the server is shutting down"):
            next(call)
        assert server.process.wait(30) == 0
        assert time.monotonic() - started < 15, "a watch does not use up the grace"
    server = serve("", "--state-dir", str(state_dir))
    with grpc.insecure_channel(server.target) as channel:
        jobs = JobClient(channel)
        found = jobs.create(spec(f"echo one; read line < {go}; echo two"), "once")
        assert (found.id, state(found)) == (job.id, "RUNNING")
        go.write_text("now\n")
        assert jobs.watch(job.id, 4).stdout == b"two\n"


def test_nothing_is_created_while_it_shuts_down(serve: Serve, tmp_path: Path) -> None:
    server = serve("[server]\nshutdown_grace_ms = 20000\n")
    with grpc.insecure_channel(server.target) as channel:
        jobs, version_1 = JobClient(channel), Client(channel)
        version_1.ping()
        blocker: Any = version_1.start(f"until [ -e {tmp_path}/go ]; do sleep 0.02; done")
        wait_until(lambda: jobs.list(states=["RUNNING"]).jobs, "a command holds the server up")
        server.process.terminate()
        codes = set()

        def refuses() -> bool:
            try:
                jobs.create(spec("true"))
            except grpc.RpcError as error:
                codes.add(error.code())
            return grpc.StatusCode.UNAVAILABLE in codes

        wait_until(refuses, "a refusal")
        # gRPC itself may have refused one that was sent while it began to shut down.
        assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        (tmp_path / "go").touch()
        assert blocker.result(30).rc == 0
    assert server.process.wait(30) == 0


def test_a_server_killed_during_a_watch(serve: Serve, tmp_path: Path) -> None:
    """Watching again at the offset reached, no byte is lost and none comes twice."""
    state_dir = tmp_path / "state"
    server = serve("", "--state-dir", str(state_dir))
    enough, written = tmp_path / "enough", tmp_path / "written"
    script = (
        f"n=0; until [ -e {enough} ]; do n=$((n+1)); echo line $n; echo error $n >&2; sleep 0.005; done; "
        f"echo $n > {written}"
    )
    output: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    job_id, kills = "", 0
    while True:
        with grpc.insecure_channel(server.target) as channel:
            jobs = JobClient(channel)
            job_id = job_id or jobs.create(spec(script)).id
            call = jobs.open_watch(job_id, len(output["stdout"]), len(output["stderr"]))
            try:
                for number, message in enumerate(call):
                    event = message.WhichOneof("event")
                    if event != "job":
                        chunk = getattr(message, event)
                        assert chunk.offset == len(output[event])
                        output[event] += chunk.data
                    if number == 20 and kills < 3:
                        server.kill()
                        kills += 1
                    elif number == 20:
                        enough.touch()
                break
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
        server = serve("", "--state-dir", str(state_dir))
    assert kills == 3
    assert state(message.job) == "SUCCEEDED"
    lines = range(1, int(written.read_text()) + 1)
    assert output["stdout"] == b"".join(b"line %d\n" % n for n in lines)
    assert output["stderr"] == b"".join(b"error %d\n" % n for n in lines)
