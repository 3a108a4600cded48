"""``remsvc ping`` and ``remsvc status``; the options of a connection."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from remsvc_proto import RemSvc_pb2
from tests.client.scripted_server import ScriptedServer, echo

from .conftest import PROGRAM, Remsvc, clean_environment

if TYPE_CHECKING:
    from tests.conftest import Serve, ServerProcess


def test_ping_measures_and_sums_up(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("ping", "-s", server.target, "-c", "3", "-i", "0.01")
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[0] == f"PING {server.target} by http2"
    for number in (1, 2, 3):
        assert re.fullmatch(rf"answer: seq={number} time=\d+\.\d{{3}} ms", lines[number])
    assert lines[5] == f"--- {server.target} ping statistics ---"
    assert re.fullmatch(r"3 sent, 3 answered, 0% lost, time \d+ ms", lines[6])
    assert re.fullmatch(r"round-trip min/avg/max = [\d.]+/[\d.]+/[\d.]+ ms", lines[7])


def test_ping_for_machines(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("ping", "-s", server.target, "-c", "3", "-i", "0.01", "--json")
    assert run.returncode == 0
    result = json.loads(run.stdout)
    assert (result["server"], result["sent"], result["answered"], result["lost"]) == (server.target, 3, 3, 0)
    assert len(result["round_trips_ms"]) == 3
    assert 0 < result["min_ms"] <= result["avg_ms"] <= result["max_ms"]


def test_ping_counts_what_is_lost(remsvc: Remsvc, scripted: Callable[..., ScriptedServer]) -> None:
    count = 0

    def moody(request: bytes, context: grpc.ServicerContext) -> bytes:
        nonlocal count
        count += 1
        if count == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return echo(request, context)

    target = scripted(ping=moody).target
    run = remsvc("ping", "-s", target, "-c", "3", "-i", "0.01")
    assert run.returncode == 255
    assert run.stderr == f"remsvc: seq=2: {target}: UNAVAILABLE: not now\n"
    assert "3 sent, 2 answered, 33% lost" in run.stdout


def test_ping_without_an_answer_fails_in_one_line(remsvc: Remsvc) -> None:
    run = remsvc("ping", "-s", "127.0.0.1:1", "--json")
    assert (run.returncode, run.stdout) == (255, "")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_endless_ping_sums_up_on_control_c(server: ServerProcess) -> None:
    command = [*PROGRAM, "ping", "-s", server.target, "-c", "0", "-i", "0.01"]
    environment = clean_environment(PYTHONUNBUFFERED="1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("answer: seq=5 "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 0
    assert ", 0% lost, time " in rest


def test_status(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("status", "-s", server.target)
    assert (run.returncode, run.stderr) == (0, "")
    beside = r"transport=(http2|grpc) process_trees=(cgroup|parentage)"
    assert re.fullmatch(rf"state=OK uptime=\d+s commands=\d+ {beside}\n", run.stdout)


def test_status_for_machines(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("status", "-s", server.target, "--json")
    result = json.loads(run.stdout)
    assert (run.returncode, result["rc"], result["state"]) == (0, 0, "OK")
    assert isinstance(result["uptime_seconds"], int)
    assert isinstance(result["commands"], int)


def test_a_server_that_reports_a_problem(remsvc: Remsvc, scripted: Callable[..., ScriptedServer]) -> None:
    def status(request: bytes, context: grpc.ServicerContext) -> bytes:
        return RemSvc_pb2.StatusMsg(rc=3, msg="disk full\x1b[2J\nsecond").SerializeToString()

    target = scripted(status=status).target
    run = remsvc("status", "-s", target)
    assert (run.returncode, run.stdout) == (1, "disk full\\x1b[2J\\nsecond\n")
    run = remsvc("status", "-s", target, "--json")
    assert json.loads(run.stdout) == {"server": target, "rc": 3, "msg": "disk full\x1b[2J\nsecond"}


def test_a_time_limit_holds(remsvc: Remsvc, scripted: Callable[..., ScriptedServer]) -> None:
    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        while context.is_active():
            time.sleep(0.01)
        return b""

    target = scripted(status=slow).target
    run = remsvc("status", "-s", target, "--timeout", "0.5")
    assert run.returncode == 255
    assert run.stderr == f"remsvc: {target}: DEADLINE_EXCEEDED: no answer within 0.5 s\n"


@pytest.fixture(scope="module")
def guarded(serve_module: Serve) -> ServerProcess:
    """A server that wants a token."""
    return serve_module("[auth]\ntester = s3cret\n")


def test_the_environment_names_server_and_token(remsvc: Remsvc, guarded: ServerProcess) -> None:
    refused = remsvc("status", env={"REMSVC_SERVER": guarded.target})
    assert refused.returncode == 255
    assert refused.stderr == f"remsvc: {guarded.target}: UNAUTHENTICATED: missing Authorization header\n"
    assert remsvc("status", env={"REMSVC_SERVER": guarded.target, "REMSVC_TOKEN": "s3cret"}).returncode == 0


def test_the_token_file_wins_over_the_environment(
    remsvc: Remsvc, guarded: ServerProcess, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    arguments = ("status", "-s", guarded.target, "--token-file", token)
    assert remsvc(*arguments, env={"REMSVC_TOKEN": "other"}).returncode == 0
    token.write_text("two\nlines\n")
    run = remsvc(*arguments)
    assert run.returncode == 2
    assert run.stderr == f"remsvc: --token-file {token}: expected one token, on one line, not 2 lines\n"
    token.write_text(" \n")
    assert "is empty" in remsvc(*arguments).stderr
    token.write_bytes(b"\xff")
    assert "expected text" in remsvc(*arguments).stderr
    token.write_text("s3cr\u00e9t", encoding="utf-8")
    refused = remsvc(*arguments)
    assert (refused.returncode, "s3cr" in refused.stderr) == (2, False)
    assert f"--token-file {token}: character 5 of the token is not printable ASCII" in refused.stderr


@pytest.mark.parametrize(
    "written",
    [
        b"\xef\xbb\xbfs3cret\r\n",
        "s3cret\r\n".encode("utf-16"),
        b"Bearer s3cret\n",
        b"\n bearer Bearer s3cret \n",
    ],
)
def test_what_came_along_with_a_token_by_accident_is_left_out(
    remsvc: Remsvc, guarded: ServerProcess, tmp_path: Path, written: bytes
) -> None:
    token = tmp_path / "token"
    token.write_bytes(written)
    run = remsvc("status", "-s", guarded.target, "--token-file", token)
    assert (run.returncode, run.stderr) == (0, "")
    if not written.startswith(b"\xff"):
        run = remsvc("status", "-s", guarded.target, env={"REMSVC_TOKEN": written.decode()})
        assert (run.returncode, run.stderr) == (0, "")


def test_a_token_that_is_none_names_the_variable_and_not_its_value(remsvc: Remsvc) -> None:
    for value in ("s3cr\u00e9t", "s3cret\nx", "Bearer ", " "):
        run = remsvc("status", "-s", "127.0.0.1:1", env={"REMSVC_TOKEN": value})
        assert run.returncode == 2
        assert run.stderr.startswith("remsvc: the variable REMSVC_TOKEN: ")
        assert len(run.stderr.splitlines()) == 1
        assert "s3cr" not in run.stderr


def test_a_token_in_the_clear_is_warned_about(remsvc: Remsvc) -> None:
    def warnings(target: str) -> str:
        run = remsvc("run", "-s", target, "--", " ", env={"REMSVC_TOKEN": "s3cret"})
        assert run.returncode == 2, "the command is blank: nothing is sent"
        assert "s3cret" not in run.stderr
        return run.stderr.removesuffix("remsvc: shell_command must not be blank\n")

    for elsewhere in ("build7:1", "192.0.2.1:1", "[2001:db8::1]:1"):
        assert warnings(elsewhere) == (
            f"remsvc: warning: the token travels in the clear to {elsewhere}: use --tls\n"
        )
    for here in ("localhost:1", "127.0.0.1:1", "[::1]:1"):
        assert warnings(here) == ""
