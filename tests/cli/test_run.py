"""``remsvc run`` against the real server, and against servers that misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.client.scripted_server import ScriptedServer, answer, command

from .conftest import PROGRAM, Remsvc, clean_environment

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="runs commands of a POSIX shell")

DEADLINE = 30.0


def test_output_and_exit_code_are_the_commands(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("run", "-s", server.target, "--", "echo out; echo err >&2; exit 3")
    assert (run.returncode, run.stdout, run.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize(
    ("text", "code"),
    [("true", 0), ("false", 1), ("exit 2", 2), ("exit 126", 126), ("exit 255", 255), ("kill -9 $$", 137)],
)
def test_exit_codes(remsvc: Remsvc, server: ServerProcess, text: str, code: int) -> None:
    assert remsvc("run", "-s", server.target, "--", text).returncode == code


def test_words_after_the_first_are_the_commands(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("run", "-s", server.target, "echo", "-n", "--json", "$((1+1))", "--", "&&", "echo", "!")
    assert (run.returncode, run.stdout) == (0, "--json 2 --!\n")


def test_the_output_is_passed_on_unchanged_in_any_locale(remsvc: Remsvc, server: ServerProcess) -> None:
    text = r"printf 'gr\303\274n\r\n\000\033[1m\377'; printf 'e\r\n' >&2"
    run = remsvc("run", "-s", server.target, "--", text, env={"LC_ALL": "C", "PYTHONUTF8": "0"}, text=False)
    assert run.stdout == "grün\r\n\0\x1b[1m\ufffd".encode()
    assert run.stderr == b"e\r\n"


def test_json_holds_the_result(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("run", "-s", server.target, "--json", "--", "echo grün; echo err >&2; exit 4")
    assert run.returncode == 4
    assert run.stderr == ""
    result = json.loads(run.stdout)
    assert result.pop("seconds") >= 0
    assert result == {
        "rc": 4,
        "out": "grün\n",
        "err": "err\n",
        "lossy": False,
        "command": "echo grün; echo err >&2; exit 4",
        "server": server.target,
    }


def test_directory_variables_and_arguments_reach_the_command(
    remsvc: Remsvc, server: ServerProcess, tmp_path: Path
) -> None:
    place = tmp_path / "a $place; 'here'"
    place.mkdir()
    options = ["run", "-s", server.target, "--cwd", str(place), "--env", "A=1 '2' $3", "--env", "EMPTY="]
    run = remsvc(*options, "--", 'pwd; echo "$A-$EMPTY-"')
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{place}\n1 '2' $3--\n", "")
    run = remsvc(*options, "--shell", "none", "--", "printf", "%s|", "a b", "$A", "")
    assert (run.returncode, run.stdout, run.stderr) == (0, "a b|$A||", "")
    run = remsvc("run", "-s", server.target, "--cwd", str(tmp_path / "missing"), "--", "echo ran")
    assert (run.returncode, run.stdout) == (255, "")
    assert "missing" in run.stderr


def test_an_unknown_user_is_told(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("run", "-s", server.target, "--user", "no-such-user", "--", "id")
    assert run.returncode == 1
    if os.geteuid() == 0:
        assert run.stderr == "user not found: no-such-user"


def test_the_server_learns_who_runs_it(remsvc: Remsvc, server: ServerProcess) -> None:
    remsvc("run", "-s", server.target, "--", "echo who-runs-this", env={"LOGNAME": "ann"})
    wait_until(lambda: "who-runs-this" in server.log)
    line = next(line for line in server.log.splitlines() if "who-runs-this" in line)
    assert "remsvc run by ann@" in line


def test_the_time_limit_ends_the_command(remsvc: Remsvc, server: ServerProcess, tmp_path: Path) -> None:
    run = remsvc(
        "run", "-s", server.target, "--timeout", "1", "--", f"echo $$ > {tmp_path}/pid; exec sleep 300"
    )
    assert (run.returncode, run.stdout) == (255, "")
    assert run.stderr == f"remsvc: {server.target}: DEADLINE_EXCEEDED: no answer within 1 s\n"
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


def test_control_c_ends_the_command_and_exits_130(server: ServerProcess, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    process = subprocess.Popen(
        [*PROGRAM, "run", "-s", server.target, "--", f"echo $$ > {pid_file}; exec sleep 300"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    with process:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (130, b"", b"")
    wait_until(lambda: not is_running(int(pid_file.read_text())))


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_client_takes_its_command_along(server: ServerProcess, tmp_path: Path, ending: int) -> None:
    pid_file = tmp_path / "pid"
    with subprocess.Popen(
        [*PROGRAM, "run", "-s", server.target, "--", f"echo $$ > {pid_file}; exec sleep 300"],
        stdin=subprocess.DEVNULL,
        env=clean_environment(),
    ) as process:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip())
        process.send_signal(ending)
        assert process.wait(DEADLINE) == -ending
    wait_until(lambda: not is_running(int(pid_file.read_text())))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detach", "--", "true"], "remsvc: --detach needs durable jobs"),
        (["--request-id", "7", "--", "true"], "remsvc: --request-id needs durable jobs"),
        (["--shell", "pwsh", "--cwd", "/", "--", "x"], "remsvc: --cwd and --env need --shell sh or none"),
        (["--", " "], "remsvc: cmd must not be blank"),
        (["--shell", "none", "--", ""], "remsvc: the program's name must not be empty"),
        (["--env", "1A=b", "--", "x"], "'1A' is not the name of a variable"),
        (["--env", "A-B=b", "--", "x"], "'A-B' is not the name of a variable"),
        (["--env", "A", "--", "x"], "'A' is not KEY=VALUE"),
        (["--timeout", "0", "--", "x"], "'0' is not a number of seconds above 0"),
        (["--timeout", "nan", "--", "x"], "'nan' is not a number of seconds above 0"),
        (["--timeout", "soon", "--", "x"], "'soon' is not a number of seconds above 0"),
        (["--shell", "fish", "--", "x"], "'fish' is not one of"),
        ([], "Missing argument '-- COMMAND...'"),
        (["--"], "Missing argument '-- COMMAND...'"),
        (["-s", "host:port", "--", "x"], "expected HOST:PORT"),
        (["--cert", "a.pem", "--", "x"], "--cert and --key belong together"),
        (["--no-tls", "--ca-cert", "a.pem", "--", "x"], "--no-tls contradicts --ca-cert"),
        (["--ca-cert", "missing.pem", "--", "x"], "remsvc: ca_cert missing.pem: cannot be read"),
        (["--token-file", "missing", "--", "x"], "remsvc: --token-file missing: cannot be read"),
    ],
)
def test_wrong_usage_exits_2_before_anything_is_sent(
    remsvc: Remsvc, arguments: list[str], message: str
) -> None:
    run = remsvc("run", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert message in run.stderr
    if message.startswith("remsvc: "):
        assert len(run.stderr.splitlines()) == 1


def test_an_argument_that_is_not_utf8_is_refused(server: ServerProcess, tmp_path: Path) -> None:
    run = subprocess.run(
        [*PROGRAM, "run", "-s", server.target, "--", b"echo \xff"],
        env=clean_environment(),
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr == b"remsvc: cmd is not valid Unicode text: it has a lone surrogate\n"


def test_an_error_of_the_server_cannot_steer_the_terminal(
    remsvc: Remsvc, scripted: Callable[..., ScriptedServer]
) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(
            grpc.StatusCode.PERMISSION_DENIED, "\x1b]0;owned\x07no\r\n\x9b31m\u202eevil\u2028[red]x[/red]"
        )

    target = scripted(run=refuse).target
    run = remsvc("run", "-s", target, "--", "x")
    assert run.returncode == 255
    assert run.stderr == (
        f"remsvc: {target}: PERMISSION_DENIED: "
        r"\x1b]0;owned\x07no\r\n\x9b31m\u202eevil\u2028[red]x[/red]" + "\n"
    )


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


def test_an_unreachable_server_is_told(remsvc: Remsvc) -> None:
    run = remsvc("run", "-s", "127.0.0.1:1", "--", "x")
    assert (run.returncode, run.stdout) == (255, "")
    assert run.stderr.startswith("remsvc: 127.0.0.1:1: UNAVAILABLE: nothing listens on this port")
    assert len(run.stderr.splitlines()) == 1


def test_a_closed_pipe_ends_it_quietly(server: ServerProcess) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        run = subprocess.run(
            [*PROGRAM, "run", "-s", server.target, "--", "seq 100000"],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            timeout=50,
            check=False,
        )
    assert run.returncode != 0
    assert run.stderr == b""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
