"""How long remote commands keep Airflow's worker slots, and how long all of them take on four.

Each way of running them has the same commands, one way after another: ``echo begun; sleep 30; echo done``, a
task each. What is counted is the time from a worker's taking a task to its being free for the next one
(:mod:`benchmarks.airflow.slot_executor`), of all runs of the task together: a task that a worker defers has
two, one that is started in the triggerer has one. The processor time is that of the worker and of what it
starts.

Of a worker's time with a task, some is chance: Airflow's supervisor may miss the moment at which the task's
process ends, and looks again only after ``[workers] min_heartbeat_interval``, here Airflow's default.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.airflow import runs
from benchmarks.airflow.operators import REMSVC_OPERATOR, SSH_OPERATOR, Operator
from benchmarks.airflow.short_tasks import BY_WORKER, FROM_TRIGGER, OVER_SSH, Way
from benchmarks.airflow.worker_runs import worker_runs
from benchmarks.rows import Rounds, Row
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import LocalAirflow

SLOTS = 4
HEARTBEAT_INTERVAL = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5"}
"""Airflow's default; a throw-away Airflow is more hurried."""
_TARGET = 0.20
"""Of SSHOperator's slots, for ours."""


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
        return [Work(30, 40)]
    return [Work(3, 4)] if settings.quick else [Work(30, 4)]


def ways(operators: Sequence[Operator]) -> list[Way]:
    """Each operator, ours in both modes."""
    names = {operator.name for operator in operators}
    over_ssh = [way for way in OVER_SSH if way.name in names]
    return [*over_ssh, *((FROM_TRIGGER, BY_WORKER) if REMSVC_OPERATOR.name in names else ())]


def write_dags(dags: Path, settings: Settings, operators: Sequence[Operator]) -> None:
    """Write a DAG for each way and work."""
    for work in works(settings):
        for way in ways(operators):
            way.write_dag(dags, work)


def rows(work: Work, way: Way) -> tuple[Row, Row, Row]:
    """Slots, wall time and processor time, without figures."""
    group, what = "airflow", f"{work.seconds} s commands: {way.name}"
    ours = way in (FROM_TRIGGER, BY_WORKER)
    name = "" if way.name == SSH_OPERATOR.name else f"{work.seconds} s commands: {SSH_OPERATOR.name}"
    note = f"of {work.tasks} tasks on {SLOTS} slots"
    suffixes = (", wall time", ", processor time")
    return (
        Row(
            group,
            what,
            "slot s a task",
            reference=name,
            target=_TARGET if ours and work.seconds == 30 else None,
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
        for way in ways(operators):
            measurement = _Measurement(work, way, airflow, slots)
            rounds.add(
                measurement, *measurement.rows, seconds=120 + work.seconds * (work.tasks / SLOTS + 1) * 2
            )


class _Measurement:
    def __init__(self, work: Work, way: Way, airflow: LocalAirflow, slots: Path) -> None:
        self._work = work
        self._way = way
        self._airflow = airflow
        self._slots = slots
        self.rows = rows(work, way)

    def __call__(self) -> dict[str, float]:
        dag_id = self._way.dag_id(self._work.name)
        self._airflow.wait_for_dag(dag_id)
        started = time.monotonic()
        run = runs.start(self._airflow, dag_id)
        runs.finish(self._airflow, run, timeout=1800)
        wall_time = time.monotonic() - started
        deadline = time.monotonic() + 30
        while True:  # the last worker is still busy when the task has ended
            found = [one for one in worker_runs(self._slots) if one.run_id == run.run_id]
            if len(found) >= self._way.visits * self._work.tasks:
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
