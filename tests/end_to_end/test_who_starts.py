"""A person sees the same of a task in a real Airflow, whoever starts it: a worker, or the triggerer."""

from __future__ import annotations

from typing import Any

import pytest

from local_airflow import DagRun, LocalAirflow
from remsvc.client import Client, ConnectionOptions
from tests.conftest import Serve, ServerProcess
from tests.end_to_end.conftest import MODES, VARIABLE, Connect
from tests.end_to_end.waiting import DEADLINE

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(len(MODES) == 1, reason="Airflow starts tasks in the triggerer from 3.3 on"),
]

STATES = {
    "templates": "success",
    "handler": "success",
    "from_upstream": "success",
    "secret": "success",
    "skipped": "skipped",
    "unusable": "failed",
    "retried": "success",
    "no_time": "failed",
    "in_worker": "success",
    "of_a_worker": "success",
    "mapped": "success",
    "native": "success",
}
STARTED_BY_A_WORKER = {"from_upstream", "of_a_worker", "mapped"}
NEVER_DEFERRED = {"in_worker"}


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module()


@pytest.fixture(scope="module")
def dag_runs(
    airflow: LocalAirflow, connect: Connect, server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[DagRun]]:
    """Those of each mode, after their end."""
    conf = {"connection": connect(server.port), "cmd": "text"}
    started = {}
    for mode in MODES:
        directory = str(tmp_path_factory.mktemp(f"retried{mode}"))
        started[mode] = [
            airflow.api.trigger(dag_id, {**conf, "directory": directory})
            for dag_id in (f"both{mode}", f"both{mode}_native")
        ]
    for runs in started.values():
        for run in runs:
            run.wait(DEADLINE)
    return started


def of_task(runs: list[DagRun], task_id: str) -> DagRun:
    return runs[task_id == "native"]


def seen(run: DagRun, task_id: str) -> dict[str, Any]:
    """What a person sees of a task, but for what names its run."""
    index = 1 if task_id == "mapped" else -1
    task = run.tasks()[task_id]
    pushed = task["state"] == "success"
    rendered = {**task["rendered_fields"]}
    if task_id in ("templates", "retried"):
        for name in ("metadata", "cwd"):  # they name the run, and its directory
            assert rendered.pop(name)
    value = run.xcom(task_id, map_index=index) if pushed else None
    return {"state": task["state"], "tries": task["try_number"], "rendered": rendered, "xcom": value}


@pytest.mark.parametrize("task_id", STATES)
def test_a_task_is_the_same(dag_runs: dict[str, list[DagRun]], task_id: str) -> None:
    usual, by_worker = (seen(of_task(dag_runs[mode], task_id), task_id) for mode in MODES)
    assert usual["state"] == STATES[task_id], of_task(dag_runs[""], task_id).log(task_id)
    assert usual == by_worker


@pytest.mark.parametrize("task_id", sorted(STATES.keys() - {"mapped"}))
def test_it_was_started_by_whom_it_should(dag_runs: dict[str, list[DagRun]], task_id: str) -> None:
    for mode, runs in dag_runs.items():
        by_worker = bool(mode) or task_id in STARTED_BY_A_WORKER
        log = of_task(runs, task_id).log(task_id)
        deferred_by_worker = by_worker and task_id not in NEVER_DEFERRED and task_id != "unusable"
        assert ("to the triggerer" in log) is deferred_by_worker, log


def test_parameters_that_cannot_be_used_are_named_alike(dag_runs: dict[str, list[DagRun]]) -> None:
    for runs in dag_runs.values():
        assert "commands[1]: cmdtyp must be 0 (shell) or 1 (PowerShell), not 2" in runs[0].log("unusable")


def test_the_rendered_view_shows_what_ran_and_no_secret(dag_runs: dict[str, list[DagRun]]) -> None:
    for runs in dag_runs.values():
        fields = runs[0].task("templates")["rendered_fields"]
        assert fields["cwd"] == "/tmp"
        assert fields["env"] == {"A": "TEXT"}
        secret = runs[0].task("secret")["rendered_fields"]
        assert secret["metadata"][0] == ["authorization", "***"]
        assert secret["commands"] == [{"cmd": "echo ***"}]
        assert VARIABLE not in runs[0].log("secret")


def test_the_jobs_say_of_which_task_they_are(
    dag_runs: dict[str, list[DagRun]], server: ServerProcess
) -> None:
    labels: dict[str, dict[str, str]] = {}
    with Client(ConnectionOptions(server.target)) as client:
        for mode, runs in dag_runs.items():
            names = {"airflow_run_id": runs[0].run_id, "airflow_task_id": "handler"}
            (job,) = client.list_jobs(labels=names)
            labels[mode] = dict(job.spec.labels)
            started = runs[0].api.request("GET", runs[0].path)["start_date"]
            assert labels[mode].pop("airflow_run_started") == started.replace("Z", "+00:00")
            for name in ("airflow_dag_id", "airflow_run_id", "airflow_time_limit"):
                del labels[mode][name]
    assert labels[""] == labels[MODES[1]]
