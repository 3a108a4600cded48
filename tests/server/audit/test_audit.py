"""The audit log of a real server: what is in it, and that nothing runs that is not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remsvc.client import Client, ConnectionOptions
from remsvc.client.jobs import Job, JobSpec, StateChange
from remsvc.command import Command
from remsvc.errors import RemSvcError, ServerError, UnavailableError

if TYPE_CHECKING:
    from tests.conftest import Serve, ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX commands")

DEADLINE = 60.0
TOKENS = {"alice": "t0ken-of-alice", "bob": "t0ken-of-bob"}
JOBS = "/remsvc.jobs.v1.JobService"
AUTH = "[auth]\n" + "".join(f"{name} = {token}\n" for name, token in TOKENS.items())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder / "audit.jsonl"


def client_of(server: ServerProcess, identity: str = "alice", token: str = "") -> Client:
    return Client(ConnectionOptions(server.target, token=token or TOKENS[identity]))


def records(path: Path, **wanted: object) -> list[dict[str, Any]]:
    """The records of a log that have these values, oldest first."""
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        record = json.loads(line)
        if all(record.get(name) == value for name, value in wanted.items()):
            found.append(record)
    return found


def run_job(client: Client, spec: JobSpec, request_id: str) -> Job:
    job = client.create_job(spec, request_id, timeout=DEADLINE)
    for event in client.watch_job(job.id):
        job = event.job if isinstance(event, StateChange) else job
    return job


def verify(*files: Path, code: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "remsvc", "audit", "verify", *map(str, files)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def wait_until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_decisions_and_transitions_of_jobs(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n[denylist]\n01 = forbidden\n")
    spec = JobSpec(
        shell_command="echo 12345; echo 12 >&2; exit 3",
        environment={"SECRET": "of-a-variable"},
        source="dag",
        standard_input=b"of-the-input",
    )
    with client_of(server) as client:
        job = run_job(client, spec, "first")
        argv = run_job(client, JobSpec(argv=["echo", "a b", "$HOME"]), "second")
        with pytest.raises(ServerError, match="denied"):
            client.create_job(JobSpec(shell_command="echo forbidden"), "third")
    with client_of(server, "bob") as client, pytest.raises(ServerError, match="NOT_FOUND"):
        client.cancel_job(job.id)
    assert server.terminate() == 0

    (asked,) = records(
        path, event="decision", request_id="first", method="/remsvc.jobs.v1.JobService/CreateJob"
    )
    assert (asked["outcome"], asked["identity"], asked["rule"]) == ("allowed", "alice", "default")
    assert asked["peer"].startswith("ipv4:127.0.0.1:")
    assert (asked["command"], asked["shell"], asked["source"]) == (spec.shell_command, "sh", "dag")
    assert asked["environment"] == ["SECRET"]
    running, ended = records(path, event="transition", job=job.id)
    assert (running["outcome"], ended["outcome"]) == ("RUNNING", "FAILED")
    assert (ended["exit_code"], ended["stdout_bytes"], ended["stderr_bytes"]) == (3, 6, 3)
    assert (ended["identity"], ended["request_id"], ended["command"]) == (
        "alice",
        "first",
        spec.shell_command,
    )
    assert asked["seq"] < running["seq"] < ended["seq"]
    assert records(path, job=argv.id, outcome="SUCCEEDED")[0]["command"] == "echo 'a b' '$HOME'"
    (refused,) = records(path, request_id="third")
    assert (refused["outcome"], refused["code"]) == ("refused", "PERMISSION_DENIED")
    assert "01" in refused["rule"]
    (stranger,) = records(path, identity="bob")
    assert (stranger["method"], stranger["code"], stranger["job"]) == (
        "/remsvc.jobs.v1.JobService/CancelJob",
        "NOT_FOUND",
        job.id,
    )
    text = path.read_text()
    assert "of-a-variable" not in text
    assert "of-the-input" not in text
    assert "valid" in verify(path)


def test_what_an_administrator_sees_of_others(serve: Serve, path: Path) -> None:
    """Each look at somebody else's job is in the log; at one's own, no more than before."""
    server = serve(f"{AUTH}[audit]\nfile = {path}\n[jobs]\nadmins = bob\n")
    with client_of(server) as alice, client_of(server, "bob") as bob:
        job = run_job(alice, JobSpec(shell_command="true"), "of alice")
        own = run_job(bob, JobSpec(shell_command="true"), "of bob")
        for look in (lambda: bob.get_job(job.id), lambda: list(bob.list_jobs())):
            look()
        bob.get_job(own.id)
        alice.get_job(job.id)
        list(alice.list_jobs())
    wanted = {"event": "decision", "outcome": "allowed"}
    wait_until(lambda: records(path, method=f"{JOBS}/ListJobs"), "it is in the log")
    assert [
        (each["identity"], each["job"], each["request_id"]) for each in records(path, method=f"{JOBS}/GetJob")
    ] == [("bob", job.id, "of alice")]
    (listed,) = records(path, method=f"{JOBS}/ListJobs", **wanted)
    assert (listed["identity"], listed["jobs"]) == ("bob", [job.id])


def test_version_1_commands(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n[allowlist]\n01 = ^echo\n")
    with client_of(server) as client:
        client.run(Command("echo 123", src="dag"), timeout=DEADLINE)
        list(client.run_many([Command("echo 1"), Command("echo $(exit 3)")], timeout=DEADLINE))
        with pytest.raises(ServerError, match="not permitted"):
            client.run(Command("id"), timeout=DEADLINE)
    assert server.terminate() == 0
    unary, *stream = records(path, event="decision", outcome="allowed")
    assert [unary["method"], *(record["method"] for record in stream)] == [
        "/RS.RemSvc/RemCmd",
        "/RS.RemSvc/RemCmdStrm",
        "/RS.RemSvc/RemCmdStrm",
    ]
    (end,) = records(path, event="transition", job=unary["job"], outcome="SUCCEEDED")
    assert (end["exit_code"], end["stdout_bytes"], end["source"]) == (0, 4, "dag")
    (refused,) = records(path, outcome="refused")
    assert (refused["code"], refused["command"]) == ("PERMISSION_DENIED", "id")
    verify(path)


def test_the_decision_is_on_disk_before_the_command_starts(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n")
    with client_of(server) as client:
        for number in range(10):
            command = f"grep -qF mark-{number}- {path}"  # finds itself
            assert client.run(Command(command), timeout=DEADLINE).rc == 0
        job = run_job(client, JobSpec(shell_command=f"grep -q of-the-job {path}"), "job")
        assert job.exit_code == 0, job


def test_calls_that_are_not_authenticated_and_no_token_anywhere(
    serve: Serve, path: Path, tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    server = serve(f"{AUTH}[audit]\nfile = {path}\n[log]\nlevel = trace\nfile = {log}\n")
    wrong = "wr0ng-token-of-nobody"
    for token in (wrong, TOKENS["alice"] + "x"):
        with client_of(server, token=token) as client, pytest.raises(ServerError, match="UNAUTHENTICATED"):
            client.run(Command("true"), timeout=DEADLINE)
    with client_of(server) as client:
        client.run(Command("true"), timeout=DEADLINE, metadata=[("x-other", "1")])
        shown = client.run(Command("ps axww; cat /proc/$PPID/environ"), timeout=DEADLINE).out
    assert server.terminate() == 0
    refused = records(path, event="authentication")
    assert len(refused) >= 2
    assert {record["reason"] for record in refused} == {"invalid bearer token"}
    for text in (path.read_text(), log.read_text(), server.log, shown):
        for token in (wrong, *TOKENS.values()):
            assert token not in text


def test_a_flood_of_calls_that_are_not_authenticated_is_counted(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n")
    with client_of(server, token="wrong") as client:
        for _ in range(400):
            with pytest.raises(ServerError):
                client.ping(timeout=DEADLINE)
    assert server.terminate() == 0
    refused = records(path, event="authentication")
    assert 100 <= len(refused) < 400
    verify(path)


def test_a_flood_of_calls_beyond_an_identitys_rate_is_counted(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n[identity alice]\nrate = 1/h\n")
    with client_of(server) as client:
        for _ in range(400):
            with suppress(ServerError):
                client.run(Command("true"), timeout=DEADLINE)
    assert server.terminate() == 0
    refused = records(path, event="decision", outcome="refused")
    assert 100 <= len(refused) < 399
    assert {record["code"] for record in refused} == {"RESOURCE_EXHAUSTED"}
    verify(path)


def test_what_is_redacted_is_written_nowhere(serve: Serve, path: Path) -> None:
    config = f"{AUTH}[audit]\nfile = {path}\nredact = (?i)password=\\S+\nredact.02 = hunter[0-9]\n"
    server = serve(f"{config}[denylist]\n01 = forbidden\n")
    with client_of(server) as client:
        client.run(Command("echo Password=s3cret hunter2 rest"), timeout=DEADLINE)
        run_job(client, JobSpec(argv=["echo", "password=s3cret", "hunter2"]), "job")
        with pytest.raises(ServerError):
            client.run(Command("forbidden password=s3cret"), timeout=DEADLINE)
    assert server.terminate() == 0
    for text in (path.read_text(), server.log):
        assert "s3cret" not in text
        assert "hunter2" not in text
    assert records(path, command="echo *** *** rest")


@pytest.mark.parametrize(
    "text", ['x\n{"seq":1}\n', "\r\x1b[2K\x1b]0;owned\x07", "\u2028\u0085\x7f\x9b31m", '","outcome":"']
)
def test_no_command_forges_a_line(serve: Serve, path: Path, text: str) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n")
    with client_of(server) as client:
        client.run(Command(f": {text}", src=text, cmdusr=""), timeout=DEADLINE)
    assert server.terminate() == 0
    for content in (path.read_bytes(), server.log.encode()):
        assert all(byte == 10 or 32 <= byte < 127 for byte in content)
    assert records(path, event="decision")[0]["command"] == f": {text}"
    verify(path)


@pytest.mark.parametrize("on_failure", ["refuse", "continue"])
def test_while_the_log_cannot_be_written(serve: Serve, path: Path, tmp_path: Path, on_failure: str) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\non_failure = {on_failure}\n")
    with client_of(server) as client:
        client.run(Command("true"), timeout=DEADLINE)
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")  # not even root writes there
        ran = tmp_path / "ran"
        if on_failure == "refuse":
            with pytest.raises(
                UnavailableError, match="the audit log cannot be written: commands are refused"
            ):
                client.run(Command(f"touch {ran}"), timeout=DEADLINE)
            with pytest.raises(ServerError):
                client.create_job(JobSpec(shell_command=f"touch {ran}"), "job", timeout=2)
            assert not [job for job in client.list_jobs() if str(ran) in (job.spec.shell_command or "")]
            client.ping(timeout=DEADLINE)
        else:
            assert client.run(Command(f"touch {ran}"), timeout=DEADLINE).rc == 0
        assert ran.exists() == (on_failure == "continue")
        wait_until(lambda: "the audit log cannot be written" in server.log, "it is said")
        path.unlink()
        assert client.run(Command("echo again"), timeout=DEADLINE).out == "again\n"
    assert server.terminate() == 0
    assert bool(records(path, action="lost")) == (on_failure == "refuse")
    (decision, *_) = records(path, command=f"touch {ran}", event="decision")
    assert decision["outcome"] == ("allowed" if on_failure == "continue" else "refused")
    assert not (tmp_path / "elsewhere").exists()
    assert "the file was removed while the server wrote it" in verify(path, code=1)


def test_a_log_that_cannot_be_opened_at_the_start_refuses_commands(serve: Serve, path: Path) -> None:
    path.symlink_to("nowhere")
    server = serve(f"{AUTH}[audit]\nfile = {path}\n")
    with client_of(server) as client:
        client.ping(timeout=DEADLINE)
        with pytest.raises(UnavailableError):
            client.run(Command("true"), timeout=DEADLINE)
        path.unlink()
        client.run(Command("true"), timeout=DEADLINE)
    assert server.terminate() == 0
    verify(path)


def test_killed_at_any_moment(serve: Serve, path: Path, tmp_path: Path) -> None:
    """``kill -9`` under load, several times: the chain goes on, and no command ran that is not in it."""
    ran = tmp_path / "ran"
    ran.mkdir()
    for round_number in range(3):
        server = serve(f"{AUTH}[audit]\nfile = {path}\n")

        def load(name: str, server: ServerProcess = server) -> None:
            with client_of(server) as client:
                try:
                    for number in range(10_000):
                        client.run(Command(f"touch {ran}/{name}-{number}."), timeout=DEADLINE)
                except RemSvcError:
                    return

        names = [f"{round_number}-{number}" for number in range(4)]
        threads = [threading.Thread(target=load, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        wait_until(lambda names=names: all(list(ran.glob(f"{name}-9.")) for name in names), "commands run")
        server.kill()
        for thread in threads:
            thread.join(DEADLINE)
    text = path.read_text()
    assert [file.name for file in ran.iterdir() if f"touch {file}" not in text] == []
    verify(path)


def test_rotation_under_load(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n")
    done = threading.Event()
    count = 0

    def load() -> None:
        nonlocal count
        with client_of(server) as client:
            while not done.is_set():
                client.run(Command("true"), timeout=DEADLINE)
                count += 1

    thread = threading.Thread(target=load)
    thread.start()
    files = []
    try:
        for number in range(3):
            before = count
            wait_until(lambda before=before: count > before + 3, "commands run")
            files.append(path.with_name(f"audit.jsonl.{number}"))
            path.rename(files[-1])
            server.process.send_signal(signal.SIGHUP)
            wait_until(path.exists, "a new file")
    finally:
        done.set()
        thread.join(DEADLINE)
    assert server.terminate() == 0
    assert "lines 1 to" in verify(*files, path)
    for file in files:
        verify(file)
    assert sum(len(records(file, event="decision")) for file in (*files, path)) == count


def test_syslog_gets_every_line(serve: Serve, path: Path, tmp_path: Path) -> None:
    address = tmp_path / "log.sock"
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(address))
    receiver.settimeout(DEADLINE)
    server = serve(f"{AUTH}[audit]\nfile = {path}\nsyslog = {address}\n")
    with receiver, client_of(server) as client:
        client.run(Command("echo to-syslog"), timeout=DEADLINE)
        received = b""
        while b"to-syslog" not in received:
            received = receiver.recv(65536)
    assert received.startswith(b"<85>remsvc-audit[")
    assert json.loads(received.partition(b": ")[2])["command"] == "echo to-syslog"
    with client_of(server) as client:  # nobody listens any more: said, and nothing is held up
        client.run(Command("true"), timeout=DEADLINE)
    wait_until(lambda: "do not reach syslog" in server.log, "it is said")
    assert server.terminate() == 0
    verify(path)


def test_a_second_server_with_the_same_log_does_not_start(serve: Serve, path: Path, tmp_path: Path) -> None:
    serve(f"[audit]\nfile = {path}\n")
    config = tmp_path / "second.ini"
    config.write_text(f"[server]\nport = 0\nstate_dir = {tmp_path}/second\n[audit]\nfile = {path}\n")
    command = [sys.executable, "-m", "remsvc", "serve", "--config", str(config)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (second.returncode, second.stdout) == (255, "")
    assert "another server writes this audit log" in second.stderr


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("file = /no/such/directory/audit.jsonl", "expected a file in a directory that exists"),
        ("file = /tmp", "expected a file in a directory that exists"),
        ("syslog = true", "expected [audit] file as well"),
        ("syslog = perhaps", "expected true or false, or the path of a socket"),
        ("redact = (?=x)", "look-around"),
        ("redact.2 = (", "expected an RE2 regular expression"),
        ("on_failure = ignore", "expected one of refuse, continue"),
        ("files = /tmp/x", "unknown key"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path: Path, lines: str, expected: str) -> None:
    config = tmp_path / "server.ini"
    config.write_text(f"[audit]\n{lines}\n")
    command = [sys.executable, "-m", "remsvc", "check-config", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert result.returncode == 2
    assert f"[audit] {lines.partition(' =')[0]}" in result.stderr
    assert expected in result.stderr


def test_the_log_is_its_owners_alone(serve: Serve, path: Path) -> None:
    serve(f"[audit]\nfile = {path}\n")
    files = {file.name: file.stat() for file in path.parent.iterdir()}
    assert files.keys() == {"audit.jsonl", "audit.jsonl.head", "audit.jsonl.key"}
    assert {(status.st_mode & 0o777, status.st_uid) for status in files.values()} == {(0o600, os.geteuid())}


def test_jobs_that_are_refused_because_files_cannot_be_used(serve: Serve, path: Path, tmp_path: Path) -> None:
    """As on a network disk that fails for a while. The caller is to ask again, and the logs have it all."""
    server = serve(f"[audit]\nfile = {path}\n{AUTH}")
    folder, aside = tmp_path / "state0" / "jobs", tmp_path / "aside"
    spec, other = JobSpec(shell_command="true"), JobSpec(shell_command="false")
    with client_of(server) as client:
        job = run_job(client, spec, "first")
        folder.rename(aside)
        folder.symlink_to(folder)  # to itself: nothing below it can be looked at, not even by root
        asked = {
            "second": JobSpec(shell_command="cat", standard_input=b"x"),
            "first": spec,
            "first once more": other,
        }
        for what, wanted in asked.items():
            request_id = what.removesuffix(" once more")
            with pytest.raises(UnavailableError, match="the files of the job cannot be used: Too many"):
                client.create_job(wanted, request_id, timeout=DEADLINE, repeat=False)
        folder.unlink()
        aside.rename(folder)
        assert client.create_job(spec, "first", timeout=DEADLINE).id == job.id
    refused = records(path, outcome="refused", code="UNAVAILABLE")
    assert [record["request_id"] for record in refused] == ["second", "first", "first"]
    told = 'job refused reason="the files of the job cannot be used: Too many'
    wait_until(lambda: server.log.count(told) == 3, "the log says why")
    wait_until(lambda: server.log.count(f"{folder}/") >= 3, "the log names the files")
