"""How long remote commands keep Airflow's worker slots, and how long all of them take on four.

Each operator runs the same commands, one operator after another: ``echo begun; sleep N; echo done``, a task
each. What is counted is the time from a worker's taking a task to its being free for the next one
(:mod:`benchmarks.airflow.slot_executor`), of all runs of the task together: a deferred task has two. The
processor time is that of the worker and of what it starts.

Of a worker's time with a task, some is chance: Airflow's supervisor may miss the moment at which the task's
process ends, and looks again only after ``[workers] min_heartbeat_interval``, here 1 s, by default 5 s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.airflow import runs
from benchmarks.airflow.operators import (
    REMSVC_OPERATOR,
    SSH_OPERATOR,
    SSH_REMOTE_JOB_OPERATOR,
    Operator,
)
from benchmarks.airflow.worker_runs import worker_runs
from benchmarks.rows import Rounds, Row
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import LocalAirflow

SLOTS = 4
_TARGETS = {30: (SSH_OPERATOR, 0.20), 3: (SSH_REMOTE_JOB_OPERATOR, 0.80)}
"""By the seconds of a command: the operator that ours is compared with, and how little of it is asked for."""


@dataclass(frozen=True)
class Work:
    """So many tasks with a command of so many seconds."""

    seconds: int
    tasks: int

    @property
    def name(self) -> str:
        return f"sleep_{self.seconds}"

    @property
    def command(self) -> str:
        return f"echo begun; sleep {self.seconds}; echo done"


def works(settings: Settings) -> list[Work]:
    """What such a run of the benchmark does. Forty tasks of thirty seconds take SSHOperator five minutes."""
    if settings.full:
        return [Work(30, 40), Work(3, 60)]
    return [Work(3, 4)] if settings.quick else [Work(30, 4), Work(3, 12)]


def write_dags(dags: Path, settings: Settings, operators: Sequence[Operator]) -> None:
    """Write a DAG for each operator and work."""
    for work in works(settings):
        for operator in operators:
            operator.write_dag(dags, work.name, work.command, work.tasks)


def rows(work: Work, operator: Operator) -> tuple[Row, Row, Row]:
    """Slots, wall time and processor time, without figures."""
    group, what = "airflow", f"{work.seconds} s commands: {operator.name}"
    compared, target = _TARGETS[work.seconds]
    ours = operator is REMSVC_OPERATOR
    reference = compared if ours else SSH_OPERATOR
    name = f"{work.seconds} s commands: {reference.name}" if operator is not reference else ""
    note = f"of {work.tasks} tasks on {SLOTS} slots"
    suffixes = (", wall time", ", processor time")
    return (
        Row(
            group,
            what,
            "slot s a task",
            reference=name,
            target=target if ours else None,
            target_is="at most",
            of_ratio=True,
            note=note,
        ),
        Row(group, what + suffixes[0], "s", reference=name and name + suffixes[0], note=note),
        Row(group, what + suffixes[1], "s a task", reference=name and name + suffixes[1]),
    )


def add(
    rounds: Rounds, settings: Settings, airflow: LocalAirflow, slots: Path, operators: Sequence[Operator]
) -> None:
    """Put them into the rounds. ``slots``: the file that the executor writes."""
    for work in works(settings):
        for operator in operators:
            measurement = _Measurement(work, operator, airflow, slots)
            rounds.add(
                measurement, *measurement.rows, seconds=120 + work.seconds * (work.tasks / SLOTS + 1) * 2
            )


class _Measurement:
    def __init__(self, work: Work, operator: Operator, airflow: LocalAirflow, slots: Path) -> None:
        self._work = work
        self._operator = operator
        self._airflow = airflow
        self._slots = slots
        self.rows = rows(work, operator)

    def __call__(self) -> dict[str, float]:
        dag_id = self._operator.dag_id(self._work.name)
        self._airflow.wait_for_dag(dag_id)
        started = time.monotonic()
        run = runs.start(self._airflow, dag_id)
        runs.finish(self._airflow, run, timeout=1800)
        wall_time = time.monotonic() - started
        runs_each = 1 if self._operator is SSH_OPERATOR else 2
        deadline = time.monotonic() + 30
        while True:  # the last worker is still busy when the task has ended
            found = [one for one in worker_runs(self._slots) if one.run_id == run.run_id]
            if len(found) >= runs_each * self._work.tasks:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{dag_id}: {len(found)} runs of workers for {self._work.tasks} tasks")
            time.sleep(0.2)
        figures = (
            sum(one.seconds for one in found) / self._work.tasks,
            wall_time,
            sum(one.processor_seconds for one in found) / self._work.tasks,
        )
        return {row.name: figure for row, figure in zip(self.rows, figures, strict=True)}
