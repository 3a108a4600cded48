"""The DAGs of the tests with several machines. What they run, and where, comes with each run's ``conf``."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from remsvc_provider.operators.remsvc import RemSvcOperator

TASKS = 200

# What a task needs to outlive the worker that it is on: a retry that takes over what the first try has left.
OUTLIVES_WORKERS: dict[str, Any] = {
    "grpc_conn_id": "{{ dag_run.conf['connection'] }}",
    "retries": 1,
    "retry_delay": timedelta(seconds=1),
    "durable": True,
}

MODES = {"deferred_by_a_worker": False, "started_from_the_trigger": True}


def stop_once(trace: str) -> str:
    """Leave a trace, and go no further; but pass where there is one already."""
    path = Path(trace.strip())
    if not path.exists():
        path.touch()
        time.sleep(600)
    return path.name


for mode, start_from_trigger in MODES.items():
    # Not mapped: Airflow lets a worker start each mapped task.
    with DAG(f"many_tasks_{mode}", schedule=None, max_active_tasks=TASKS):
        for number in range(TASKS):
            RemSvcOperator(
                task_id=f"remote_{number}",
                commands=[{"cmd": f"{{{{ dag_run.conf['cmd'] }}}} {number}"}],
                start_from_trigger=start_from_trigger,
                **OUTLIVES_WORKERS,
            )
    with DAG(f"stops_while_it_resumes_{mode}", schedule=None):
        RemSvcOperator(
            task_id="remote",
            commands=[{"cmd": "{{ dag_run.conf['cmd'] }}"}],
            result_handler=lambda results: stop_once(results[1]["out"]),
            start_from_trigger=start_from_trigger,
            **OUTLIVES_WORKERS,
        )

with DAG("stops_while_it_defers", schedule=None, user_defined_macros={"stop_once": stop_once}):
    RemSvcOperator(
        task_id="remote",
        commands=[{"cmd": "{{ dag_run.conf['cmd'] }}", "src": "{{ stop_once(dag_run.conf['trace']) }}"}],
        **OUTLIVES_WORKERS,
    )
