"""What short commands cost an Airflow with its defaults: time, slots of workers, tasks that fail by chance.

Each way of running them has the same work, one way after another: so many tasks each of ``sleep 0``, ``1``,
``2``, ``4`` and of an ``echo``; and so many tasks of three seconds. A visit is one run of a task by a worker
(:mod:`benchmarks.airflow.slot_executor`); a deferred task has two, one that is started in the triggerer
has one.

No command fails here, so each task that does has failed although its command succeeded: that is counted, and
is no error of the measurement. Airflow's ``[workers] min_heartbeat_interval`` and its scheduler's pauses are
its defaults here, because they decide how many there are. A full run also has 600 tasks of up to six seconds,
started in the triggerer and deferred by a worker, while a process for each processor does nothing but
calculate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.airflow.operators import (
    REMSVC_OPERATOR,
    SSH_OPERATOR,
    SSH_REMOTE_JOB_OPERATOR,
    Operator,
)
from benchmarks.airflow.worker_runs import WorkerRun, worker_runs
from benchmarks.rows import Rounds, Row
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import DagRun, LocalAirflow

LATE = 4.5
"""Seconds. No visit for such a command takes that long, but for Airflow's missing that it has ended."""
DEFAULTS = {
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "5",
}
"""Airflow's own; a throw-away Airflow is more hurried."""

_OFF = "import os\n\nos.environ['AIRFLOW__REMSVC__PROMPT_EXIT'] = 'False'\n"


class Tasks(Protocol):
    """What a DAG is made of: so many tasks with one command each."""

    @property
    def name(self) -> str: ...
    @property
    def command(self) -> str: ...
    @property
    def tasks(self) -> int: ...


@dataclass(frozen=True)
class Way:
    """One way for Airflow to run a command.

    Attributes:
        name: for the table.
        key: for the ids of its DAGs.
        operator: with its arguments.
        prelude: for the beginning of its DAG's file, which workers read as well.
        visits: of a worker to a task.
    """

    name: str
    key: str
    operator: Operator
    prelude: str = ""
    visits: int = 2

    def dag_id(self, work: str) -> str:
        """The id of its DAG for some work."""
        return self.operator.dag_id(f"{work}_{self.key}")

    def write_dag(self, dags: Path, work: Tasks) -> None:
        """Write a DAG whose tasks do the work."""
        name = f"{work.name}_{self.key}"
        self.operator.write_dag(dags, name, work.command, work.tasks)
        file = dags / f"{self.dag_id(work.name)}.py"
        file.write_text(self.prelude + file.read_text(encoding="utf-8"), encoding="utf-8")


def _ours(arguments: str) -> Operator:
    return replace(REMSVC_OPERATOR, arguments=f"{REMSVC_OPERATOR.arguments}, {arguments}")


FROM_TRIGGER = Way("RemSvcOperator", "trigger", _ours("start_from_trigger=True"), visits=1)
BY_WORKER = Way("RemSvcOperator, deferred by a worker", "worker", _ours("start_from_trigger=False"))
UNCURED = Way("the same with prompt_exit off", "late", _ours("start_from_trigger=False"), prelude=_OFF)
CURED = (BY_WORKER, FROM_TRIGGER)
OURS = (UNCURED, *CURED)
OVER_SSH = (
    Way("SSHOperator", "ssh", SSH_OPERATOR, visits=1),
    Way("SSHRemoteJobOperator", "ssh", SSH_REMOTE_JOB_OPERATOR),
)


@dataclass(frozen=True)
class Work:
    """So many tasks with one command each."""

    name: str
    command: str
    tasks: int


@dataclass(frozen=True)
class Series:
    """Works that are done one after another, and of which all figures together are a row.

    Attributes:
        title: for the table.
        works: in their order.
        busy: whether the processors have something else to do meanwhile.
    """

    title: str
    works: tuple[Work, ...]
    busy: bool = False

    @property
    def tasks(self) -> int:
        return sum(work.tasks for work in self.works)


def series(settings: Settings) -> tuple[Series, Series]:
    """Short commands of several lengths, and commands of three seconds."""
    tasks, lengths = (30, (0, 1, 2, 4)) if settings.full else (20, (0, 2))
    works = [Work(f"wait_{seconds}", f"sleep {seconds}", tasks) for seconds in lengths]
    works.append(Work("say", "echo hello", tasks))
    three = 60 if settings.full else 20
    return (
        Series("short commands", tuple(works)),
        Series("3 s commands, Airflow's defaults", (Work("wait_3", "sleep 3; true", three),)),
    )


MANY = Series(
    "600 commands of 0 to 6 s beside busy processors",
    # $$ is as good as chance: commands of one length do not come together.
    (Work("wait_any", "sleep $(($$ % 7))", 600),),
    busy=True,
)


def _of(settings: Settings, ssh: bool) -> Iterator[tuple[Series, Way]]:
    short, three = series(settings)
    for way in OURS:
        yield short, way
    for way in (*(OVER_SSH if ssh else ()), *OURS):
        yield three, way
    if settings.full:
        for way in CURED:
            yield MANY, way


def write_dags(dags: Path, settings: Settings, ssh: bool) -> None:
    """Write a DAG for each way and work."""
    for one, way in _of(settings, ssh):
        for work in one.works:
            way.write_dag(dags, work)


def rows(one: Series, way: Way) -> tuple[Row, ...]:
    """Without figures: time, slots, visits, late visits, failures. Beside busy processors only failures: the
    others say nothing then."""
    what = f"{one.title}: {way.name}"
    note = f"{one.tasks} tasks on four slots"
    none = 0.0 if way in CURED else None
    failed = Row("airflow", f"{what}: failed by chance", "tasks", target=none, target_is="at most")
    if one.busy:
        return (failed,)
    return (
        Row("airflow", f"{what}: wall time", "s", note=note),
        Row("airflow", f"{what}: slots", "slot s"),
        Row("airflow", f"{what}: longest visit", "s"),
        Row("airflow", f"{what}: visits over {LATE} s", "visits", target=none, target_is="at most"),
        failed,
    )


def rows_over_ssh(settings: Settings) -> list[Row]:
    """Those that need an SSH server."""
    _, three = series(settings)
    return [row for way in OVER_SSH for row in rows(three, way)]


def add(rounds: Rounds, settings: Settings, airflow: LocalAirflow, slots: Path, ssh: bool) -> None:
    """Put them into the rounds. ``slots``: the file that the executor writes."""
    for one, way in _of(settings, ssh):
        measurement = _Measurement(one, way, airflow, slots)
        rounds.add(measurement, *measurement.rows, seconds=120 + 6 * one.tasks)


class _Measurement:
    def __init__(self, one: Series, way: Way, airflow: LocalAirflow, slots: Path) -> None:
        self._series = one
        self._way = way
        self._airflow = airflow
        self._slots = slots
        self.rows = rows(one, way)

    def __call__(self) -> dict[str, float]:
        with _busy_processors() if self._series.busy else nullcontext():
            return self._measure()

    def _measure(self) -> dict[str, float]:
        wall_time, failed = 0.0, 0
        visits: list[float] = []
        for work in self._series.works:
            dag_id = self._way.dag_id(work.name)
            self._airflow.wait_for_dag(dag_id)
            started = time.monotonic()
            run = self._airflow.api.trigger(dag_id)
            run.wait(1800)
            wall_time += time.monotonic() - started
            failed += _failed(self._airflow, run)
            visits += [one.seconds for one in self._visits(run, work)]
        late = sum(seconds > LATE for seconds in visits)
        figures = (wall_time, sum(visits), max(visits), float(late), float(failed))
        return {row.name: figure for row, figure in zip(self.rows, figures[-len(self.rows) :], strict=True)}

    def _visits(self, run: DagRun, work: Work) -> Sequence[WorkerRun]:
        # The last worker is still busy when its task has ended; of a task that failed, one is missing.
        deadline = time.monotonic() + 10
        while True:
            found = [one for one in worker_runs(self._slots) if one.run_id == run.run_id]
            if len(found) >= self._way.visits * work.tasks or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


@contextmanager
def _busy_processors() -> Iterator[None]:
    """As many processes as there are processors, which do nothing but calculate."""
    endless = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0):
            process = stack.enter_context(subprocess.Popen(endless))
            stack.callback(process.kill)
        yield


def _failed(airflow: LocalAirflow, run: DagRun) -> int:
    path = f"{run.path}/taskInstances?state=failed&limit=1"
    return int(airflow.api.request("GET", path)["total_entries"])
