"""An executor that notes how long each run of a task keeps one of its workers busy.

Set as ``[core] executor``. It is Airflow's LocalExecutor, whose workers take one task after another: each
writes a line of JSON when it has let go of one. A deferred task is run by a worker twice, and has two lines.
"""

from __future__ import annotations

import json
import os
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.local_executor import LocalExecutor

FILE = "REMSVC_BENCHMARK_SLOTS"
"""The environment variable with the path of the file that the lines are added to."""


@dataclass(frozen=True)
class WorkerRun:
    """One run of a task by a worker.

    Attributes:
        dag_id, run_id: which run of which DAG the task is of.
        seconds: from taking the task to being free for the next one.
        processor_seconds: of the worker and the processes that it has started for the task, in them.
    """

    dag_id: str
    run_id: str
    seconds: float
    processor_seconds: float


def worker_runs(path: Path) -> list[WorkerRun]:
    """All that have been noted so far."""
    if not path.exists():
        return []
    return [WorkerRun(**json.loads(line)) for line in path.read_text().splitlines()]


class SlotExecutor(LocalExecutor):
    """LocalExecutor; importing this module has its workers measured."""


_run = BaseExecutor.run_workload


def _measured(workload: Any, **arguments: Any) -> int:
    processor, started = _processor_seconds(), time.monotonic()
    try:
        return _run(workload, **arguments)
    finally:
        run = WorkerRun(
            dag_id=workload.ti.dag_id,
            run_id=workload.ti.run_id,
            seconds=time.monotonic() - started,
            processor_seconds=_processor_seconds() - processor,
        )
        line = json.dumps(asdict(run)) + "\n"
        # In one write, so that those of several workers do not mix.
        file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def _processor_seconds() -> float:
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


# The workers are processes forked from the scheduler, where this was imported; they call it there.
BaseExecutor.run_workload = staticmethod(_measured)  # type: ignore[method-assign]
