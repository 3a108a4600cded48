"""What is left when a part of the server dies."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remsvc.client import Client, ConnectionOptions, JobSpec, JobState
from remsvc.command import Command
from remsvc.errors import RemSvcError, ServerError

if TYPE_CHECKING:
    from tests.conftest import Serve, ServerProcess

DEADLINE = 30.0


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def wait_until(condition: object, what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def run_in_background(server: ServerProcess, command: str) -> list[object]:
    """Run a command in a thread; what came of it will be in the list."""
    outcome: list[object] = []

    def run() -> None:
        try:
            with Client(ConnectionOptions(server.target)) as client:
                outcome.append(client.run(Command(command), timeout=DEADLINE))
        except RemSvcError as error:
            outcome.append(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def test_a_killed_server_leaves_nothing_behind(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    outcome = run_in_background(server, f"echo $$ > {tmp_path}/pid; (setsid sleep 1000 &) ; sleep 1000")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the command runs")
    (supervisor,) = children(server.process.pid)
    server.kill()
    wait_until(lambda: outcome, "the client is told")
    assert isinstance(outcome[0], ServerError)
    wait_until(lambda: not Path(f"/proc/{supervisor}").exists(), "the supervisor has ended")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_killed_supervisor_is_said_and_replaced(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    outcome = run_in_background(server, f"echo $$ > {tmp_path}/pid; sleep 1000")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the command runs")
    (supervisor,) = children(server.process.pid)
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: outcome, "the client is told")
    assert isinstance(outcome[0], ServerError)
    assert (outcome[0].code, "not known" in outcome[0].details) == ("INTERNAL", True)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    def runs_again() -> bool:
        with Client(ConnectionOptions(server.target)) as client:
            return client.run(Command("echo again"), timeout=DEADLINE).out == "again\n"

    wait_until(runs_again, "commands run again")
    assert server.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    server = serve()
    outcome = run_in_background(server, f"echo $$ > {tmp_path}/pid; sleep 1000")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the command runs")
    server.process.send_signal(number)
    wait_until(lambda: "stopping" in server.log, "it drains")
    assert server.process.poll() is None
    server.process.send_signal(number)
    assert server.process.wait(DEADLINE) == 0
    wait_until(lambda: outcome, "the client is told")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_transport_that_ends_by_itself_ends_the_server_with_an_error(serve: Serve, tmp_path: Path) -> None:
    """So that the service manager starts it again; durable jobs go on meanwhile."""
    ending = (sys.executable, str(Path(__file__).with_name("ending_transport.py")))
    state = ("--state-dir", str(tmp_path / "state"))
    server = serve("", *state, "--transport", "grpc", wrapper=ending)
    with Client(ConnectionOptions(server.target)) as client:
        go = tmp_path / "go"
        job = client.create_job(JobSpec(f"until [ -e {go} ]; do sleep 0.02; done", time_limit=60), "one")
    outcome = run_in_background(server, f"echo $$ > {tmp_path}/pid; sleep 1000")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the command runs")

    server.process.send_signal(signal.SIGUSR1)
    assert server.process.wait(DEADLINE) == 255
    assert "CRITICAL remsvc.server nobody can reach the server any more" in server.log
    assert "Traceback" not in server.log
    wait_until(lambda: outcome, "the client is told")

    with Client(ConnectionOptions(serve("", *state).target)) as client:
        assert client.get_job(job.id).state is JobState.RUNNING
        go.touch()
        wait_until(lambda: client.get_job(job.id).ended, "the job ends")
        assert client.get_job(job.id).state is JobState.SUCCEEDED
