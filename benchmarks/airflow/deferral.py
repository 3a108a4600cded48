"""Tasks that are deferred by writing them into Airflow's database, as their workers would have done it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_airflow import LocalAirflow, PostgresServer

DEADLINE = 240.0
"""Seconds for anything that is waited for."""


@dataclass(frozen=True)
class Plan:
    """What to defer; travels to the process that does it.

    Attributes:
        run_id: of the DAG run.
        tasks: the ids of the tasks.
        command: the text of the command; empty: the triggers only sleep.
        connections: the Airflow connections, which the commands are given in turns.
        trace: the beginning of the names of the files that triggers and commands write.
        pause: seconds between one task and the next.
        ssh_jobs: a folder of jobs for SSHRemoteJobOperator's triggers to watch, in place of commands.
    """

    run_id: str
    tasks: list[str]
    command: str
    connections: list[str]
    trace: str
    pause: float = 0.0
    ssh_jobs: str = ""


def defer(airflow: LocalAirflow, plan: Plan) -> None:
    """Put a plan into Airflow's database."""
    subprocess.run(
        [sys.executable, "-m", "benchmarks.airflow.defer", json.dumps(asdict(plan))],
        env=airflow.environment,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=DEADLINE,
    )


class Database:
    """What Airflow's database says of a run's tasks."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._url = postgres.url.replace("+psycopg2", "")

    def tasks(self, run_id: str, state: str) -> int:
        """How many are in a state."""
        query = "select count(*) from task_instance where run_id = %s and state = %s"
        return self._number(query, (run_id, state))

    def succeeded(self, run_id: str, task_id: str) -> int:
        """How many task instances have an event that says so, which a worker would resume them with."""
        query = (
            "select count(*) from task_instance where run_id = %s and task_id = %s and state = 'scheduled'"
            " and next_kwargs::text like '%%SUCCESS%%'"
        )
        return self._number(query, (run_id, task_id))

    def _number(self, query: str, values: Sequence[Any]) -> int:
        import psycopg2

        connection = psycopg2.connect(self._url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, values)
                return int(cursor.fetchone()[0])
        finally:
            connection.close()


def wait(condition: Callable[[], bool]) -> None:
    """Until it is so, at most :data:`DEADLINE`."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {DEADLINE:.0f} s")
        time.sleep(0.2)
