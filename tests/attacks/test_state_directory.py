"""Links, owners and paths: nobody but the server's user gets at the state directory or a job's output."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import psutil
import pytest

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from tests.attacks.conftest import status_of
from tests.conftest import DEADLINE, Serve, ServerProcess

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


def run_job(server: ServerProcess, request_id: str, command: str, user: str = "") -> jobs_pb2.Job:
    with grpc.insecure_channel(server.target) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        spec = jobs_pb2.JobSpec(shell_command=command, user=user)
        job = stub.CreateJob(jobs_pb2.CreateJobRequest(request_id=request_id, spec=spec), timeout=DEADLINE)
        for event in stub.WatchJob(jobs_pb2.WatchJobRequest(id=job.id), timeout=DEADLINE):
            if event.HasField("job"):
                job = event.job
    return job


def output(server: ServerProcess, job: jobs_pb2.Job) -> str:
    with grpc.insecure_channel(server.target) as channel:
        watch = jobs_pb2_grpc.JobServiceStub(channel).WatchJob(
            jobs_pb2.WatchJobRequest(id=job.id), timeout=DEADLINE
        )
        return b"".join(event.stdout.data for event in watch).decode()


def start(state_dir: Path) -> subprocess.CompletedProcess[str]:
    """A server that must not start; one that does is ended after a while, and the test fails."""
    command = [sys.executable, "-m", "remsvc", "serve", "--port", "0", "--state-dir", str(state_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_everything_in_the_state_directory_is_its_owners_alone(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    run_job(server, "one", "echo secret; echo secret >&2")
    for path in (tmp_path / "state0").rglob("*"):
        mode = path.lstat().st_mode
        assert not stat.S_ISLNK(mode)
        assert mode & 0o077 == 0, path


@as_root
def test_a_command_of_another_user_reads_and_changes_nothing_of_it(serve: Serve, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):  # reachable, as /var/lib is
        folder.chmod(folder.stat().st_mode | 0o055)
    server = serve()
    secret = run_job(server, "secret", "echo hidden")
    state = tmp_path / "state0"
    attack = f"""
        cd {tmp_path} || exit 1
        cat {state}/journal.sqlite {state}/jobs/{secret.id}/stdout
        ls {state} {state}/jobs
        echo forged > {state}/jobs/{secret.id}/stdout
        ln {state}/journal.sqlite /tmp/remsvc-attack-$$ && echo linked
        ln -s /etc/passwd {state}/jobs/planted
        mv {state} {state}.away
        python3 -c 'import socket as s; s.socket(s.AF_UNIX).connect("{state}/supervisor.sock")' &&
            echo connected
        for fd in /proc/self/fd/*; do readlink "$fd"; done | grep -F {state}
        true
    """
    attacker = run_job(server, "attack", attack, user="nobody")
    said = output(server, attacker)
    assert "hidden" not in said
    assert "linked" not in said
    assert "connected" not in said
    assert str(state) not in said
    assert output(server, secret) == "hidden\n"
    assert state.is_dir()
    assert not (state / "jobs" / "planted").is_symlink()


@as_root
def test_a_command_cannot_change_what_it_has_written(serve: Serve) -> None:
    """It writes into a pipe: there is no file of ours to seek in, cut or replace."""
    server = serve()
    command = """
        echo first
        python3 - <<'END'
import os
for fd in (1, 2):
    for attack in (lambda: os.lseek(fd, 0, 0), lambda: os.ftruncate(fd, 0), lambda: os.pread(fd, 1, 0)):
        try:
            attack()
            print("possible")
        except OSError:
            pass
END
    """
    job = run_job(server, "rewrite", command, user="nobody")
    assert output(server, job) == "first\n"


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720])
def test_a_state_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)
    ended = start(state)
    assert ended.returncode == 255
    assert "no one else may write to" in ended.stderr


@as_root
def test_a_state_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    assert start(state).returncode == 255


@as_root
def test_a_link_that_somebody_else_made_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "of-root"
    target.mkdir(mode=0o700)
    link = tmp_path / "state"
    link.symlink_to(target)
    os.lchown(link, NOBODY, NOBODY)
    ended = start(link)
    assert ended.returncode == 255
    assert "a link that somebody else has made" in ended.stderr
    assert not list(target.iterdir())


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir(mode=0o700)
    (state / "lock").symlink_to(victim)
    assert start(state).returncode == 255
    assert not victim.exists()


@pytest.mark.parametrize(
    "job", ["../..", "../../etc", "/etc/passwd", ".", "", "\0", "a/../../b", "lock", "%2e%2e"]
)
def test_no_id_leads_out_of_the_directory(serve_module: Serve, job: str) -> None:
    server = _shared(serve_module)
    with grpc.insecure_channel(server.target) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        for call in (
            lambda: stub.GetJob(jobs_pb2.GetJobRequest(id=job), timeout=DEADLINE),
            lambda: stub.CancelJob(jobs_pb2.CancelJobRequest(id=job), timeout=DEADLINE),
            lambda: list(stub.WatchJob(jobs_pb2.WatchJobRequest(id=job), timeout=DEADLINE)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("request_id", ["../../x", "/tmp/x", "a/b", "..", "x\ny"])
def test_no_request_id_becomes_a_path(serve_module: Serve, request_id: str, tmp_path: Path) -> None:
    server = _shared(serve_module)
    jobs: list[jobs_pb2.Job] = []
    status = status_of(lambda: jobs.append(run_job(server, request_id, "pwd")))
    assert status in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    assert all(job.id.replace("-", "").isalnum() for job in jobs)


_servers: dict[int, ServerProcess] = {}


def _shared(serve_module: Serve) -> ServerProcess:
    return _servers.setdefault(id(serve_module), serve_module())


def test_a_process_that_got_a_dead_jobs_pid_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    """Its supervisor and server were killed; another process has the pid that the journal names."""
    import sqlite3

    server = serve()
    with grpc.insecure_channel(server.target) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        spec = jobs_pb2.JobSpec(shell_command="sleep 600")
        job = stub.CreateJob(jobs_pb2.CreateJobRequest(request_id="reuse", spec=spec), timeout=DEADLINE)
        for event in stub.WatchJob(jobs_pb2.WatchJobRequest(id=job.id), timeout=DEADLINE):
            if event.job.state == jobs_pb2.RUNNING:
                break
    tree = psutil.Process(server.process.pid).children(recursive=True)
    server.kill()
    for process in tree:
        process.kill()
    psutil.wait_procs(tree, DEADLINE)
    innocent = subprocess.Popen(["sleep", "600"])
    try:
        connection = sqlite3.connect(tmp_path / "state0" / "journal.sqlite")
        with connection:
            connection.execute("UPDATE jobs SET pid = ? WHERE id = ?", (innocent.pid, job.id))
        connection.close()
        again = serve("", "--state-dir", str(tmp_path / "state0"))
        with grpc.insecure_channel(again.target) as channel:
            stub = jobs_pb2_grpc.JobServiceStub(channel)
            found = stub.CancelJob(jobs_pb2.CancelJobRequest(id=job.id, kill=True), timeout=DEADLINE)
        assert found.state == jobs_pb2.LOST
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
