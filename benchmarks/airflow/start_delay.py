"""How long it takes from a trigger's first step to the start of its command, one trigger after another.

The triggerer has reached the server before, so that there is a connection: what is left is to learn what
Airflow's connection says, and to have the server store the job and start it. A command's start is what the
server says of its job; trigger and server are on one machine, and share its clock.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.airflow.deferral import DEADLINE, Database, Plan, defer, wait
from benchmarks.airflow.operators import REMSVC_CONNECTION
from benchmarks.rows import Rounds, Row, percentile
from benchmarks.server import Server
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import LocalAirflow, PostgresServer

_TASKS, _PAUSE = 40, 0.4
_GOAL_MS = 15.0
_DAG_ID = "start_delay"
_DAG = """
from airflow.sdk import DAG
from remsvc_provider.operators.remsvc import RemSvcOperator

with DAG("{dag_id}", schedule=None):
    RemSvcOperator(task_id="first", commands=[{{"cmd": "true"}}])
    RemSvcOperator.partial(task_id="remote").expand(commands=[[{{"cmd": "true"}}]] * {tasks})
"""
_WHAT = "from a trigger's start to its command's"
ROWS = (
    Row("airflow", f"{_WHAT}: p50", "ms", target=_GOAL_MS, target_is="at most"),
    Row("airflow", f"{_WHAT}: p99", "ms"),
)


def write_dag(dags: Path) -> None:
    """Write the DAG."""
    (dags / f"{_DAG_ID}.py").write_text(_DAG.format(dag_id=_DAG_ID, tasks=_TASKS), encoding="utf-8")


def add(
    rounds: Rounds, settings: Settings, airflow: LocalAirflow, postgres: PostgresServer, server: Server
) -> None:
    """Put it into the rounds. No scheduler and no triggerer of this Airflow may run then."""
    trace = settings.new_folder("starts") / "trace"
    database = Database(postgres)

    def measure() -> dict[str, float]:
        airflow.wait_for_dag(_DAG_ID)
        run_id = airflow.api.trigger(_DAG_ID).run_id
        triggerer = airflow.start_triggerer()
        try:
            for task_id in ("first", "remote"):
                defer(airflow, Plan(run_id, [task_id], "true", [REMSVC_CONNECTION], str(trace), pause=_PAUSE))
                wait(lambda: database.tasks(run_id, "deferred") == 0)
        finally:
            triggerer.process.stop()
        delays = start_delays(server, run_id, trace.with_suffix(".steps"))[1:]
        return {row.name: percentile(delays, percent) for row, percent in zip(ROWS, (50, 99), strict=True)}

    rounds.add(measure, *ROWS, seconds=3 * DEADLINE)


def start_delays(server: Server, run_id: str, steps: Path) -> list[float]:
    """Milliseconds for each command of a run, in the order in which their triggers began."""
    from remsvc.client import Client

    with Client(server.options) as client:
        jobs = client.list_jobs(labels={"airflow_run_id": run_id}, page_size=1000)
        started = {job.request_id: job.started_at.timestamp() for job in jobs if job.started_at is not None}
    first_steps: dict[str, float] = {}
    for line in steps.read_text().splitlines():
        request_id, _, at = line.rpartition(" ")
        first_steps.setdefault(request_id, float(at))
    return [(started[one] - at) * 1000 for one, at in first_steps.items() if one in started]
