"""``remsvc run`` on a server without durable jobs: protocol version 1 does what it can."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.client.scripted_server import ScriptedServer, answer, command

from .conftest import DEADLINE, Remsvc, Started, is_running, wait_until

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="runs commands of a POSIX shell")


def test_json_holds_the_result(remsvc: Remsvc, version_1_server: ServerProcess) -> None:
    text = "echo grün; echo err >&2; exit 4"
    run = remsvc("run", "-s", version_1_server.target, "--json", "--", text)
    assert run.returncode == 4
    assert run.stderr == ""
    result = json.loads(run.stdout)
    assert result.pop("seconds") >= 0
    assert result == {
        "rc": 4,
        "out": "grün\n",
        "err": "err\n",
        "lossy": False,
        "command": text,
        "server": version_1_server.target,
    }


def test_bytes_that_are_not_utf8_are_replaced(remsvc: Remsvc, version_1_server: ServerProcess) -> None:
    run = remsvc("run", "-s", version_1_server.target, "--", r"printf 'a\377'", text=False)
    assert run.stdout == "a\ufffd".encode()


def test_an_outcome_that_is_not_known_is_255(remsvc: Remsvc, scripted: Callable[..., ScriptedServer]) -> None:
    calls = []

    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        calls.append(request)
        context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")

    server = scripted(run=run)
    done = remsvc("run", "-s", server.target, "--", "x")
    assert done.returncode == 255
    assert done.stdout == ""
    assert done.stderr == (
        f"remsvc: {server.target}: CANCELLED: the server gave the call up: "
        "it shuts down, or has more of them than it can take\n"
    )
    assert len(calls) == 1, "it may have run: never again"


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--detach", ["--detach"]),
        ("--request-id", ["--request-id", "7"]),
        ("--label", ["--label", "a=b"]),
        ("--stdin", ["-i"]),
        ("--output-limit", ["--output-limit", "1"]),
    ],
)
def test_what_needs_jobs_is_refused(
    remsvc: Remsvc, version_1_server: ServerProcess, tmp_path: Path, option: str, arguments: list[str]
) -> None:
    run = remsvc("run", "-s", version_1_server.target, *arguments, "--", f"touch {tmp_path}/ran")
    assert (run.returncode, run.stdout) == (255, "")
    assert run.stderr == (
        f"remsvc: {option} needs durable jobs, which {version_1_server.target} does not have: "
        "it speaks protocol version 1 alone\n"
    )
    assert not (tmp_path / "ran").exists()


def test_powershell_with_a_directory_is_refused(remsvc: Remsvc, version_1_server: ServerProcess) -> None:
    run = remsvc("run", "-s", version_1_server.target, "--shell", "pwsh", "--cwd", "/", "--", "x")
    assert run.returncode == 2
    assert run.stderr == "remsvc: --cwd and --env need --shell sh or none on protocol version 1\n"


def test_an_unknown_user_is_told(remsvc: Remsvc, version_1_server: ServerProcess) -> None:
    run = remsvc("run", "-s", version_1_server.target, "--user", "no-such-user", "--", "id")
    assert run.returncode == 1
    if os.geteuid() == 0:
        assert run.stderr == "user not found: no-such-user"


def test_the_time_limit_ends_the_command(
    remsvc: Remsvc, version_1_server: ServerProcess, tmp_path: Path
) -> None:
    text = f"echo $$ > {tmp_path}/pid; exec sleep 300"
    run = remsvc("run", "-s", version_1_server.target, "--timeout", "3", "--", text)
    assert (run.returncode, run.stdout) == (255, "")
    assert run.stderr == f"remsvc: {version_1_server.target}: DEADLINE_EXCEEDED: no answer within 3 s\n"
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


def test_control_c_ends_the_command_and_exits_130(
    started: Started, version_1_server: ServerProcess, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    text = f"echo $$ > {pid_file}; exec sleep 300"
    process = started("run", "-s", version_1_server.target, "--", text)
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (130, b"", b"")
    wait_until(lambda: not is_running(int(pid_file.read_text())))


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_client_takes_its_command_along(
    started: Started, version_1_server: ServerProcess, tmp_path: Path, ending: int
) -> None:
    pid_file = tmp_path / "pid"
    text = f"echo $$ > {pid_file}; exec sleep 300"
    process = started("run", "-s", version_1_server.target, "--", text)
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip())
    process.send_signal(ending)
    assert process.wait(DEADLINE) == -ending
    wait_until(lambda: not is_running(int(pid_file.read_text())))


def test_bytes_that_are_not_utf8_are_told(remsvc: Remsvc, scripted: Callable[..., ScriptedServer]) -> None:
    def spoil(request: bytes, context: grpc.ServicerContext) -> bytes:
        return answer(rc=6, tid=command(request).tid, out="a?b\n").replace(b"?", b"\xff")

    run = remsvc("run", "-s", scripted(run=spoil).target, "--", "x")
    assert (run.returncode, run.stdout) == (6, "a\ufffdb\n")
    assert (
        run.stderr == "remsvc: warning: the server sent bytes that are not UTF-8; they are shown as U+FFFD\n"
    )


@pytest.mark.parametrize("code", [256, 0xC000013A - 2**32, -1])
def test_an_exit_code_that_does_not_fit_is_no_success(
    remsvc: Remsvc, scripted: Callable[..., ScriptedServer], code: int
) -> None:
    server = scripted(run=lambda request, context: answer(rc=code, tid=1))
    run = remsvc("run", "-s", server.target, "--", "x")
    assert run.returncode == 255
    assert f"the command's exit code is {code}" in run.stderr


@pytest.mark.parametrize(
    "verb", [["list"], ["show", "x"], ["wait", "x"], ["cancel", "x"], ["logs", "x"], ["logs", "-f", "x"]]
)
def test_the_verbs_about_jobs_say_that_there_are_none(
    remsvc: Remsvc, version_1_server: ServerProcess, verb: list[str]
) -> None:
    run = remsvc("jobs", verb[0], "-s", version_1_server.target, *verb[1:])
    assert (run.returncode, run.stdout) == (255, "")
    assert run.stderr == (
        f"remsvc: {version_1_server.target} has no durable jobs: it speaks protocol version 1 alone\n"
    )
