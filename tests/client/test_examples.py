"""The examples do what they show, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Serve, ServerProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "client"
DEADLINE = 50.0


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("[auth]\nexample = a-token-of-an-example\n")


def run_example(name: str, server: ServerProcess, **changes: str) -> subprocess.CompletedProcess[str]:
    given = {"REMSVC_SERVER": server.target, "REMSVC_TOKEN": "a-token-of-an-example", **changes}
    others = {name: value for name, value in os.environ.items() if not name.startswith("REMSVC_")}
    return subprocess.run(
        [sys.executable, EXAMPLES / name],
        env={**others, **given},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_run(server: ServerProcess) -> None:
    run = run_example("run.py", server)
    assert run.returncode == 0, run.stderr
    first, *commands = run.stdout.splitlines()
    assert first.startswith("exit code 2, out 'hello\\n', err ")
    assert [line.partition(":")[0] for line in commands] == ["command 1", "command 2", "command 3"]


def test_detach_and_follow(server: ServerProcess) -> None:
    run = run_example("detach_and_follow.py", server)
    assert run.returncode == 7, run.stderr
    begin, *steps, end = run.stdout.splitlines()
    assert begin.endswith(" was started")
    assert steps == ["step 1", "step 2", "step 3"]
    assert end.endswith(": FAILED, exit code 7, 21 bytes of output")


def test_cancel(server: ServerProcess) -> None:
    run = run_example("cancel.py", server)
    assert run.returncode == 0, run.stderr
    begin, end = run.stdout.splitlines()
    assert begin.endswith(" runs")
    assert ": CANCELLED: " in end
    assert "not needed any more" in end


@pytest.mark.parametrize("name", ["run.py", "detach_and_follow.py", "cancel.py"])
def test_what_goes_wrong_is_told_in_one_line(server: ServerProcess, name: str) -> None:
    run = run_example(name, server, REMSVC_TOKEN="another")
    assert run.returncode == 1
    assert run.stderr == f"error: {server.target}: UNAUTHENTICATED: invalid bearer token\n"


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"run.py", "detach_and_follow.py", "cancel.py"}
