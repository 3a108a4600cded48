"""Runs of the benchmark's DAGs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_airflow import DagRun, LocalAirflow


def start(airflow: LocalAirflow, dag_id: str) -> DagRun:
    """Start a run as soon as Airflow knows the DAG."""
    airflow.wait_for_dag(dag_id)
    return airflow.api.trigger(dag_id)


def finish(airflow: LocalAirflow, run: DagRun, timeout: float) -> None:
    """Wait for its end.

    Raises:
        RuntimeError: it failed; with the last errors in its tasks' logs.
        TimeoutError: it did not end within ``timeout`` seconds.
    """
    state = run.wait(timeout)
    if state == "success":
        return
    errors = [
        line
        for path in sorted(airflow.logs.glob(f"dag_id={run.dag_id}/**/*.log"))
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if '"error"' in line or '"critical"' in line
    ]
    raise RuntimeError(f"the run of {run.dag_id} ended as {state}: {' '.join(errors[-2:])}")
