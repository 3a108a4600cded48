"""One real Airflow for all end-to-end tests, and what they find out about remote commands."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_airflow import LocalAirflow
from secured_server import SecuredServer

DEADLINE = 120.0
"""Seconds to wait for something that must happen; it usually does within a few."""

Connect = Callable[..., str]


@pytest.fixture(scope="package")
def secured_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    """The server of the connection ``remsvc_default``: TLS, and a token that callers need."""
    with SecuredServer(tmp_path_factory.mktemp("secured") / "server") as server:
        yield server


@pytest.fixture(scope="package")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, secured_server: SecuredServer
) -> Iterator[LocalAirflow]:
    home = tmp_path_factory.mktemp("airflow")
    connection = {"AIRFLOW_CONN_REMSVC_DEFAULT": secured_server.connection}
    with LocalAirflow(home, Path(__file__).parent / "dags", connection) as airflow:
        airflow.wait_for_dag("command")
        yield airflow


@pytest.fixture(scope="package")
def connect(airflow: LocalAirflow) -> Connect:
    """Add a connection to Airflow: ``connect(port, **extra)`` returns its id."""
    numbers = itertools.count(1)

    def connect(port: int, host: str = "127.0.0.1", **extra: Any) -> str:
        connection = {
            "connection_id": f"server_{next(numbers)}",
            "conn_type": "remsvc",
            "host": host,
            "port": port,
            "extra": json.dumps(extra),
        }
        answer: Mapping[str, str] = airflow.api.request("POST", "/connections", connection)
        return answer["connection_id"]

    return connect


@dataclass(frozen=True)
class LongCommand:
    """A command that runs for ten minutes unless it is ended, and leaves a trace of each start."""

    trace: Path

    @property
    def cmd(self) -> str:
        return f"echo $$ >> {shlex.quote(str(self.trace))}; exec sleep 600"

    @property
    def pids(self) -> list[int]:
        """The process of each time that it was started."""
        if not self.trace.exists():
            return []
        return [int(line) for line in self.trace.read_text().split()]

    def wait_until_started(self, times: int = 1) -> None:
        wait_until(lambda: len(self.pids) >= times, f"the command to start {times} time(s)")

    def wait_until_ended(self, times: int = 1) -> None:
        """Wait until the processes of the first so many starts are gone."""
        pids = self.pids[:times]
        wait_until(lambda: not any(map(_is_running, pids)), f"processes {pids} to end")


@pytest.fixture
def long_command(tmp_path: Path) -> Iterator[LongCommand]:
    command = LongCommand(tmp_path / "trace")
    yield command
    for pid in command.pids:  # left behind by a test that failed
        if _is_running(pid):
            os.kill(pid, 9)


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {DEADLINE:.0f} s for {what}")
        time.sleep(0.1)


def _is_running(pid: int) -> bool:
    try:
        # A zombie has ended, whoever has yet to reap it.
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
