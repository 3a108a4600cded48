"""``remsvc run``: what holds with durable jobs and with protocol version 1 alike, and wrong usage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.client.scripted_server import ScriptedServer

from .conftest import PROGRAM, Remsvc, clean_environment, wait_until

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="runs commands of a POSIX shell")


@pytest.fixture(params=["server", "version_1_server"])
def any_server(request: pytest.FixtureRequest) -> ServerProcess:
    """A server that has durable jobs, or one that has not: what both do alike is tested here."""
    server: ServerProcess = request.getfixturevalue(request.param)
    return server


def test_output_and_exit_code_are_the_commands(remsvc: Remsvc, any_server: ServerProcess) -> None:
    run = remsvc("run", "-s", any_server.target, "--", "echo out; echo err >&2; exit 3")
    assert (run.returncode, run.stdout, run.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize(
    ("text", "code"),
    [("true", 0), ("false", 1), ("exit 2", 2), ("exit 126", 126), ("exit 255", 255), ("kill -9 $$", 137)],
)
def test_exit_codes(remsvc: Remsvc, any_server: ServerProcess, text: str, code: int) -> None:
    assert remsvc("run", "-s", any_server.target, "--", text).returncode == code


def test_words_after_the_first_are_the_commands(remsvc: Remsvc, any_server: ServerProcess) -> None:
    run = remsvc("run", "-s", any_server.target, "echo", "-n", "--json", "$((1+1))", "--", "&&", "echo", "!")
    assert (run.returncode, run.stdout) == (0, "--json 2 --!\n")


def test_the_output_is_passed_on_unchanged_in_any_locale(remsvc: Remsvc, any_server: ServerProcess) -> None:
    text = r"printf 'gr\303\274n\r\n\000\033[1m'; printf 'e\r\n' >&2"
    run = remsvc(
        "run", "-s", any_server.target, "--", text, env={"LC_ALL": "C", "PYTHONUTF8": "0"}, text=False
    )
    assert run.stdout == "grün\r\n\0\x1b[1m".encode()
    assert run.stderr == b"e\r\n"


def test_directory_variables_and_arguments_reach_the_command(
    remsvc: Remsvc, any_server: ServerProcess, tmp_path: Path
) -> None:
    place = tmp_path / "a $place; 'here'"
    place.mkdir()
    options = ["run", "-s", any_server.target, "--cwd", str(place), "--env", "A=1 '2' $3", "--env", "EMPTY="]
    run = remsvc(*options, "--", 'pwd; echo "$A-$EMPTY-"')
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{place}\n1 '2' $3--\n", "")
    run = remsvc(*options, "--shell", "none", "--", "printf", "%s|", "a b", "$A", "")
    assert (run.returncode, run.stdout, run.stderr) == (0, "a b|$A||", "")
    run = remsvc("run", "-s", any_server.target, "--cwd", str(tmp_path / "missing"), "--", "echo ran")
    assert (run.returncode in (1, 255), run.stdout) == (True, "")
    assert "missing" in run.stderr


def test_the_server_learns_who_runs_it(remsvc: Remsvc, any_server: ServerProcess) -> None:
    remsvc("run", "-s", any_server.target, "--", "echo who-runs-this", env={"LOGNAME": "ann"})
    wait_until(lambda: "who-runs-this" in any_server.log)
    line = next(line for line in any_server.log.splitlines() if "who-runs-this" in line)
    assert "remsvc run by ann@" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--request-id", "", "--", "x"], "remsvc: request_id must have 1 to 128 printable ASCII characters"),
        (["--request-id", "é", "--", "x"], "remsvc: request_id must have 1 to 128 printable ASCII"),
        (["--cwd", "", "--", "x"], "remsvc: --cwd must be an absolute path, not ''"),
        (["--cwd", "srv/app", "--", "x"], "remsvc: --cwd must be an absolute path, not 'srv/app'"),
        (["--label", "a", "--", "x"], "'a' is not KEY=VALUE"),
        (["--label", "=a", "--", "x"], "'=a' is not KEY=VALUE"),
        (["--label", "k" * 64 + "=a", "--", "x"], "k': expected a key of 1 to 63 characters, not 64"),
        (["--", " "], "remsvc: shell_command must not be blank"),
        (["--shell", "none", "--", ""], "remsvc: argv must begin with the name of a program"),
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


def test_an_argument_that_is_not_utf8_is_refused(any_server: ServerProcess, tmp_path: Path) -> None:
    run = subprocess.run(
        [*PROGRAM, "run", "-s", any_server.target, "--", b"echo \xff"],
        env=clean_environment(),
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr == b"remsvc: shell_command is not valid Unicode text: it has a lone surrogate\n"


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


def test_an_unreachable_server_is_told(remsvc: Remsvc) -> None:
    run = remsvc("run", "-s", "127.0.0.1:1", "--", "x")
    assert (run.returncode, run.stdout) == (255, "")
    assert run.stderr.startswith("remsvc: 127.0.0.1:1: UNAVAILABLE: nothing listens on this port")
    assert len(run.stderr.splitlines()) == 1


def test_a_closed_pipe_ends_it_quietly(any_server: ServerProcess) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        run = subprocess.run(
            [*PROGRAM, "run", "-s", any_server.target, "--", "seq 100000"],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            timeout=50,
            check=False,
        )
    assert run.returncode != 0
    assert run.stderr == b""
