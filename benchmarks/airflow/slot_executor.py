"""An executor that notes how long each run of a task keeps one of its workers busy.

Set as ``[core] executor``. It is Airflow's LocalExecutor, whose workers take one task after another: each
writes a line of JSON when it has let go of one. A deferred task is run by a worker twice, and has two lines.
"""

from __future__ import annotations

import json
import os
import resource
import time
from dataclasses import asdict
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.local_executor import LocalExecutor

from benchmarks.airflow.worker_runs import FILE, WorkerRun


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
