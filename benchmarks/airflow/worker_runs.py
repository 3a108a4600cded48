"""What the executor notes of its workers: a line of JSON for each run of a task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

EXECUTOR = "benchmarks.airflow.slot_executor.SlotExecutor"
"""For ``[core] executor``."""
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
