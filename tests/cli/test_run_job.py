"""``remsvc run`` as a durable job: live, cancellable, through restarts of the server."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.client.scripted_jobs import ScriptedJobs

from .conftest import DEADLINE, Remsvc, Started, is_running, wait_until

if TYPE_CHECKING:
    from tests.conftest import Serve, ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="durable jobs are for POSIX")


def read(process: subprocess.Popen[bytes], count: int) -> bytes:
    """So many bytes of a process's standard output, as they come."""
    assert process.stdout is not None
    data = b""
    while len(data) < count:
        more = os.read(process.stdout.fileno(), count - len(data))
        assert more, f"ended after {data!r}"
        data += more
    return data


def show(remsvc: Remsvc, server: Any, job_id: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(remsvc("jobs", "show", "-s", server.target, job_id, "--json").stdout)
    return result


def newest(remsvc: Remsvc, server: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(
        remsvc("jobs", "list", "-s", server.target, "--limit", "1", "--json").stdout
    )[0]
    return result


def test_output_comes_as_it_appears(started: Started, server: ServerProcess, tmp_path: Path) -> None:
    step = "echo {0}; while [ ! -e {1}/{0} ]; do sleep 0.01; done; "
    text = "".join(step.format(name, tmp_path) for name in ("one", "two"))
    process = started("run", "-s", server.target, "--", text)
    for line in (b"one\n", b"two\n"):
        assert read(process, len(line)) == line
        (tmp_path / line.decode().strip()).touch()
    assert process.wait(DEADLINE) == 0


def test_every_byte_arrives_unchanged(remsvc: Remsvc, server: ServerProcess, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    run = remsvc(
        "run", "-s", server.target, "--", f"cat {tmp_path}/data; tac -s x {tmp_path}/data >&2", text=False
    )
    assert run.returncode == 0
    assert run.stdout == data
    assert len(run.stderr) == len(data)


def test_output_over_its_limit_is_told(remsvc: Remsvc, server: ServerProcess) -> None:
    arguments = ["run", "-s", server.target, "--output-limit"]
    text = "seq 1 1000000"
    whole = "".join(f"{number}\n" for number in range(1, 1000001))
    run = remsvc(*arguments, len(whole), "--", text)
    assert (run.returncode, run.stdout, run.stderr) == (0, whole, "")
    run = remsvc(*arguments, 1000, "--", text)
    assert run.returncode == 0
    assert run.stdout.startswith("1\n2\n")
    assert run.stdout.endswith("\n1000000\n")
    assert len(run.stdout) < len(whole)
    assert "bytes of stdout are missing" in run.stderr
    run = remsvc(*arguments, 1 << 40, "--", "echo out")
    warning = "remsvc: warning: the server keeps at most 1073741824 bytes of each output\n"
    assert (run.returncode, run.stdout, run.stderr) == (0, "out\n", warning)


def test_a_reader_that_is_slower_than_the_command_misses_nothing(
    started: Started, server: ServerProcess, tmp_path: Path
) -> None:
    size = 150_000_000  # the server keeps 64 MiB where nobody asks for more
    text = f"head -c {size} /dev/zero; touch {tmp_path}/ended"
    process = started("run", "-s", server.target, "--", text)
    wait_until((tmp_path / "ended").exists)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, len(out), err) == (0, size, b"")


def test_json_holds_job_and_output(remsvc: Remsvc, server: ServerProcess) -> None:
    text = r"printf 'gr\303\274n\377'; echo err >&2; exit 4"
    run = remsvc("run", "-s", server.target, "--json", "--label", "a=b", "--", text)
    assert (run.returncode, run.stderr) == (4, "")
    result = json.loads(run.stdout)
    assert (
        result.items()
        >= {
            "rc": 4,
            "state": "FAILED",
            "out": "grün\ufffd",
            "err": "err\n",
            "lossy": True,
            "command": text,
            "server": server.target,
            "stdout_bytes": 6,
            "stderr_bytes": 4,
            "labels": {"a": "b"},
        }.items()
    )
    assert result["seconds"] >= 0


def test_standard_input_is_passed_on_when_asked(remsvc: Remsvc, server: ServerProcess) -> None:
    data = bytes(range(256)) * 4096
    run = remsvc("run", "-s", server.target, "--stdin", "--", "sha256sum", stdin=data, text=False)
    assert run.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert remsvc("run", "-s", server.target, "--", "wc -c", stdin=data, text=False).stdout.strip() == b"0"
    run = remsvc("run", "-s", server.target, "-i", "--", "cat", stdin=data + b"x", text=False)
    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr == b"remsvc: --stdin passes on at most 1048576 bytes, and there are more\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--cwd", "/nonexistent", "--", "true"], 1, "could not be started: "),
        (["--shell", "none", "--", "no-such-program"], 1, "could not be started: "),
        (["--timeout", "0.2", "--", "exec sleep 300"], 124, "timed out: "),
    ],
)
def test_an_end_that_is_not_the_commands_own_is_told(
    remsvc: Remsvc, server: ServerProcess, arguments: list[str], code: int, message: str
) -> None:
    run = remsvc("run", "-s", server.target, *arguments)
    assert (run.returncode, run.stdout) == (code, "")
    job_id = newest(remsvc, server)["id"]
    assert run.stderr.startswith(f"remsvc: job {job_id} {message}")
    assert len(run.stderr.splitlines()) == 1
    wait = remsvc("jobs", "wait", "-s", server.target, job_id)
    assert (wait.returncode, wait.stdout, wait.stderr) == (code, "", run.stderr)


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        (
            {"state": jobs_pb2.LOST, "reason": "the host\x1b[31m restarted"},
            255,
            r"is lost: the host\x1b[31m restarted",
        ),
        ({"state": jobs_pb2.LOST, "exit_code": 0}, 255, "is lost"),
        ({"state": jobs_pb2.CANCELLED, "exit_code": 0, "reason": "why"}, 130, "was cancelled: why"),
        ({"state": jobs_pb2.CANCELLED}, 130, "was cancelled before it started, and nothing ran"),
        ({"state": jobs_pb2.TIMED_OUT, "exit_code": 0}, 124, "timed out"),
        ({"state": jobs_pb2.FAILED, "reason": "no"}, 1, "could not be started: no"),
        ({"state": jobs_pb2.FAILED, "exit_code": 143, "signal": 15}, 143, None),
        ({"state": jobs_pb2.SUCCEEDED, "exit_code": 0}, 0, None),
    ],
)
def test_each_end_has_its_exit_code(
    remsvc: Remsvc, jobs: ScriptedJobs, fields: dict[str, Any], code: int, message: str | None
) -> None:
    job = jobs.add(b"out\n", request_id="r")
    jobs.change(job, **fields)
    run = remsvc("run", "-s", jobs.target, "--request-id", "r", "--", "x")
    assert (run.returncode, run.stdout) == (code, "out\n")
    assert run.stderr == ("" if message is None else f"remsvc: job job1 {message}\n")
    wait = remsvc("jobs", "wait", "-s", jobs.target, "job1")
    assert (wait.returncode, wait.stdout, wait.stderr) == (code, "", run.stderr)


def test_a_request_id_runs_once(remsvc: Remsvc, server: ServerProcess, tmp_path: Path) -> None:
    arguments = ["run", "-s", server.target, "--request-id", f"once {tmp_path.name}", "--"]
    text = f"echo ran >> {tmp_path}/runs; echo done; exit 5"
    for name in ("ann", "bob"):
        run = remsvc(*arguments, text, env={"LOGNAME": name})
        assert (run.returncode, run.stdout, run.stderr) == (5, "done\n", "")
    assert (tmp_path / "runs").read_text() == "ran\n"
    run = remsvc(*arguments, text + " # other")
    assert run.returncode == 255
    assert f"remsvc: {server.target}: ALREADY_EXISTS: " in run.stderr
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_a_detached_job_goes_on(remsvc: Remsvc, server: ServerProcess, tmp_path: Path) -> None:
    text = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo done; exit 6"
    run = remsvc("run", "-s", server.target, "--detach", "--", text)
    assert (run.returncode, run.stderr) == (0, "")
    job_id = run.stdout.removesuffix("\n")
    assert show(remsvc, server, job_id)["state"] == "RUNNING"
    (tmp_path / "go").touch()
    assert remsvc("jobs", "wait", "-s", server.target, job_id).returncode == 6
    assert remsvc("jobs", "logs", "-s", server.target, job_id).stdout == "done\n"
    run = remsvc("run", "-s", server.target, "--detach", "--json", "--", "true")
    assert json.loads(run.stdout).items() >= {"command": "true", "rc": None}.items()


# Ctrl-C and other signals


def sleeper(tmp_path: Path, trap: str = "") -> str:
    """A command that writes its pid, says "ready" and sleeps."""
    return f"{trap} echo $$ > {tmp_path}/pid; echo ready; while :; do sleep 0.05; done"


def has_ended(tmp_path: Path) -> bool:
    return not is_running(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_cancels_the_job_and_shows_its_end(
    started: Started, remsvc: Remsvc, server: ServerProcess, tmp_path: Path, number: int, code: int
) -> None:
    trap = "trap 'echo last words; exit 0' TERM;"
    process = started("run", "-s", server.target, "--", sleeper(tmp_path, trap))
    assert read(process, 6) == b"ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE)
    job = newest(remsvc, server)
    assert (process.returncode, out) == (code, b"last words\n")
    # The shell may say something too, about its own child.
    assert [line for line in err.decode().splitlines() if line.startswith("remsvc")] == [
        f"remsvc: warning: cancelling job {job['id']}; Ctrl-C again kills it",
        f"remsvc: job {job['id']} was cancelled: interrupted by the user",
    ]
    assert job["state"] == "CANCELLED"
    assert has_ended(tmp_path)


def test_a_second_control_c_kills_the_job(
    started: Started, remsvc: Remsvc, server: ServerProcess, tmp_path: Path
) -> None:
    process = started("run", "-s", server.target, "--", sleeper(tmp_path, "trap 'echo no' TERM;"))
    assert read(process, 6) == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert read(process, 3) == b"no\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert "killing job" in err.decode()
    assert newest(remsvc, server)["state"] == "CANCELLED"
    assert has_ended(tmp_path)


def test_a_third_control_c_leaves_the_job(started: Started, jobs: ScriptedJobs) -> None:
    process = started("run", "-s", jobs.target, "--", "x")
    wait_until(lambda: jobs.watches)
    jobs.write(jobs.jobs["job1"], b"ready\n")
    assert read(process, 6) == b"ready\n"
    for count, kill in ((1, False), (2, True)):
        process.send_signal(signal.SIGINT)
        wait_until(lambda count=count: len(jobs.asked("CancelJob")) == count)
        assert jobs.asked("CancelJob")[-1].kill is kill
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert b"job job1 may still be running: see remsvc jobs show job1" in err


def test_control_c_while_the_server_is_away_is_carried_out_later(
    started: Started, jobs: ScriptedJobs
) -> None:
    process = started("run", "-s", jobs.target, "--", "x")
    wait_until(lambda: jobs.watches)
    jobs.stop()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    lines = []
    while not lines or "cannot be cancelled yet" not in lines[-1]:
        lines.append(process.stderr.readline().decode())
    jobs.start()
    wait_until(lambda: jobs.asked("CancelJob"))
    jobs.change(jobs.jobs["job1"], jobs_pb2.CANCELLED)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert b"job job1 was cancelled" in err


def test_control_c_before_the_job_is_there_cancels_it_then(started: Started, jobs: ScriptedJobs) -> None:
    jobs.silent.add("CreateJob")
    process = started("run", "-s", jobs.target, "--", "x")
    wait_until(lambda: jobs.asked("CreateJob"))
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)  # for the signal to arrive; too early would test less, not fail
    jobs.silent.clear()
    wait_until(lambda: jobs.asked("CancelJob"))
    jobs.change(jobs.jobs["job1"], jobs_pb2.CANCELLED)
    assert process.wait(DEADLINE) == 130


def test_control_c_while_connecting_ends_it_at_once(started: Started) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = started("run", "-s", f"127.0.0.1:{listener.getsockname()[1]}", "--", "x")
        connection, _ = listener.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_job_that_ends_by_itself_after_all_has_its_own_exit_code(
    started: Started, jobs: ScriptedJobs
) -> None:
    process = started("run", "-s", jobs.target, "--", "x")
    wait_until(lambda: jobs.watches)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: jobs.asked("CancelJob"))
    jobs.change(jobs.jobs["job1"], jobs_pb2.FAILED, exit_code=7)
    assert process.wait(DEADLINE) == 7


def test_kill_9_of_the_client_leaves_the_job(
    started: Started, remsvc: Remsvc, server: ServerProcess, tmp_path: Path
) -> None:
    text = f"echo ready; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 8"
    process = started("run", "-s", server.target, "--request-id", tmp_path.name, "--", text)
    assert read(process, 6) == b"ready\n"
    process.kill()
    process.wait(DEADLINE)
    assert newest(remsvc, server)["state"] == "RUNNING"
    (tmp_path / "go").touch()
    run = remsvc("run", "-s", server.target, "--request-id", tmp_path.name, "--", text)
    assert (run.returncode, run.stdout) == (8, "ready\n")


def test_a_reader_that_leaves_ends_the_job(started: Started, remsvc: Remsvc, server: ServerProcess) -> None:
    process = started("run", "-s", server.target, "--", "yes")
    assert read(process, 4) == b"y\ny\n"
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(DEADLINE) != 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stdout = None
    job = newest(remsvc, server)
    assert remsvc("jobs", "wait", "-s", server.target, job["id"]).returncode == 130
    assert show(remsvc, server, job["id"])["reason"] == "nobody reads its output any more"


# Lost connections


def restartable(serve: Serve, tmp_path: Path, port: int = 0) -> ServerProcess:
    return serve("", "--port", str(port), "--state-dir", str(tmp_path / "state"))


@pytest.mark.parametrize("ending", ["kill", "terminate"])
def test_a_restart_of_the_server_loses_no_byte(
    started: Started, serve: Serve, tmp_path: Path, ending: str
) -> None:
    text = (
        f"seq 1 200000; while [ ! -e {tmp_path}/go ]; do echo waiting >&2; sleep 0.01; done; "
        "seq 200001 400000; exit 9"
    )
    server = restartable(serve, tmp_path)
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = started("run", "-s", server.target, "--", text, stdout=out, stderr=err)
        wait_until(lambda: b"waiting" in (tmp_path / "err").read_bytes())
        if ending == "kill":
            server.kill()
        else:
            server.terminate()
        wait_until(lambda: b"reconnecting" in (tmp_path / "err").read_bytes())
        (tmp_path / "go").touch()
        restartable(serve, tmp_path, server.port)
        assert process.wait(DEADLINE) == 9
    assert (tmp_path / "out").read_text() == "".join(f"{number}\n" for number in range(1, 400001))
    notice = f"remsvc: warning: connection to {server.target} lost, reconnecting"
    lines = (tmp_path / "err").read_text().splitlines()
    assert lines.count(notice) == 1
    assert set(lines) == {notice, "waiting"}


def test_each_loss_of_the_connection_is_told_once(started: Started, jobs: ScriptedJobs) -> None:
    process = started("run", "-s", jobs.target, "--", "x")
    wait_until(lambda: jobs.watches)
    job = jobs.jobs["job1"]
    for text in (b"one", b"two"):
        jobs.stop()
        jobs.write(job, text)
        jobs.start()
        assert read(process, 3) == text
    jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    notice = f"remsvc: warning: connection to {jobs.target} lost, reconnecting\n"
    assert err.decode() == 2 * notice


def test_an_error_while_watching_says_that_the_job_may_run(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    jobs.watch_faults = [(1, grpc.StatusCode.PERMISSION_DENIED)]
    run = remsvc("run", "-s", jobs.target, "--", "x")
    assert run.returncode == 255
    assert run.stderr.splitlines() == [
        "remsvc: warning: job job1 may still be running: see remsvc jobs show job1",
        f"remsvc: {jobs.target}: PERMISSION_DENIED: as the test wants it",
    ]


def test_calls_that_a_server_gives_up_as_it_ends_are_made_again(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    given_up = (grpc.StatusCode.CANCELLED, "CANCELLED", ())
    jobs.refusals["CreateJob"] = [given_up] * 2
    jobs.watch_faults = [(1, grpc.StatusCode.CANCELLED)]
    ended = threading.Thread(target=_end_when_watched_again, args=(jobs,))
    ended.start()
    run = remsvc("run", "-s", jobs.target, "--", "x")
    ended.join()
    assert run.returncode == 3
    assert run.stderr == (f"remsvc: warning: connection to {jobs.target} lost, reconnecting\n")


def _end_when_watched_again(jobs: ScriptedJobs) -> None:
    wait_until(lambda: len(jobs.asked("WatchJob")) > 1)
    jobs.change(jobs.jobs["job1"], jobs_pb2.FAILED, exit_code=3)


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_job_that_may_have_been_created_is_told_with_its_request_id(
    remsvc: Remsvc, jobs: ScriptedJobs, detach: list[str]
) -> None:
    jobs.refusals["CreateJob"] = [(grpc.StatusCode.INTERNAL, "a defect", ())]
    run = remsvc("run", "-s", jobs.target, *detach, "--request-id", "nightly", "--", "x")
    assert run.returncode == 255
    assert run.stderr.splitlines() == [
        "remsvc: warning: whether the job was created is not known; its request id is nightly",
        f"remsvc: {jobs.target}: INTERNAL: a defect",
    ]


def test_a_refused_job_is_told_in_one_line(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "100 jobs are waiting already", ())
    jobs.refusals["CreateJob"] = [refusal]
    run = remsvc("run", "-s", jobs.target, "--", "x")
    assert run.returncode == 255
    assert run.stderr == f"remsvc: {jobs.target}: RESOURCE_EXHAUSTED: 100 jobs are waiting already\n"
