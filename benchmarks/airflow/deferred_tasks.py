"""A thousand deferred tasks in one real triggerer: what each takes, and how late the event loop is.

As many task instances are put into the database as deferred, as their workers would have done it; no
scheduler runs. Each command prints four lines in twenty seconds. A trigger among them measures how late the
loop calls it. The same is done with triggers that only sleep: that is what Airflow itself costs. The time is
told apart: until all have started, while all run, and from the first end until Airflow has taken the last
event. A thread that looks on while the loop is late tells whether it is in the provider's code.

The memory is that of the triggerer's processes while all run, beyond what it was before: then one command
had been run already, and all that is imported for it was.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.rows import Rounds, Row, percentile
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import LocalAirflow, PostgresServer, Triggerer

SLEEPING, COMMANDS = "sleeping triggers", "deferred commands"
TASKS = 1000
_SECONDS, _LINES = 20.0, 4
_DEADLINE = 600.0
_PHASES = ("until all have started", "while all run", "until the last event")
_DAG_ID = "deferred_tasks"
_DAG = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from remsvc_provider.operators.remsvc import RemSvcOperator

with DAG("{dag_id}", schedule=None):
    EmptyOperator(task_id="probe")
    RemSvcOperator(task_id="first", commands=[{{"cmd": "true"}}])
    RemSvcOperator.partial(task_id="remote").expand(commands=[[{{"cmd": "true"}}]] * {tasks})
"""
# $1: trace, $2: seconds between two lines, $3: lines
_COMMAND = """\
echo x >> "$1.started"
n=0
while [ $n -lt "$3" ]; do n=$((n + 1)); echo "line $n, as long as lines of logs usually are"; sleep "$2"; done
echo x >> "$1.ended"
"""


@dataclass(frozen=True)
class Plan:
    """What to defer; travels to the process that does it.

    Attributes:
        run_id: of the DAG run.
        tasks: the ids of the tasks.
        command: the text of the command; empty: the triggers only sleep.
        seconds: to sleep.
        trace: the beginning of the names of the files that started and ended triggers add a line to.
        probe: the file of the loop's probe.
    """

    run_id: str
    tasks: list[str]
    command: str
    seconds: float
    trace: str
    probe: str


def write_dag(dags: Path) -> None:
    """Write the DAG of which they are."""
    (dags / f"{_DAG_ID}.py").write_text(_DAG.format(dag_id=_DAG_ID, tasks=TASKS), encoding="utf-8")


def rows(kind: str) -> tuple[Row, ...]:
    """Without figures: how late the loop is in each part of the time, and the memory of each."""
    number = f"{TASKS:,}"

    def row(what: str, unit: str) -> Row:
        reference = f"{number} {SLEEPING}: {what}" if kind != SLEEPING else ""
        return Row("airflow", f"{number} {kind}: {what}", unit, reference=reference)

    lag = [row(f"loop late {phase}, {which}", "ms") for phase in _PHASES for which in ("p99", "at most")]
    if kind == COMMANDS:
        lag.append(Row("airflow", f"{number} {kind}: loop late in the provider, at most", "ms"))
    return (*lag, row("memory each", "KB"))


def add(rounds: Rounds, settings: Settings, airflow: LocalAirflow, postgres: PostgresServer) -> None:
    """Put them into the rounds. No scheduler and no triggerer of this Airflow may run then."""
    for kind in (SLEEPING, COMMANDS):
        measurement = _Measurement(kind, settings, airflow, postgres)
        rounds.add(measurement, *measurement.rows, seconds=_DEADLINE + 60)


class _Measurement:
    def __init__(
        self, kind: str, settings: Settings, airflow: LocalAirflow, postgres: PostgresServer
    ) -> None:
        self._kind = kind
        self._airflow = airflow
        self._postgres = postgres
        self._folder = settings.new_folder("deferred")
        self._trace = self._folder / "trace"
        self._probe = self._folder / "probe"
        self.rows = rows(kind)

    def __call__(self) -> dict[str, float]:
        script = self._folder / "command.sh"
        script.write_text(_COMMAND, encoding="utf-8")
        command = f"sh {script} {self._trace} {_SECONDS / _LINES} {_LINES}"
        self._airflow.wait_for_dag(_DAG_ID)
        run_id = self._airflow.api.trigger(_DAG_ID).run_id
        triggerer = self._airflow.start_triggerer()
        try:
            self._defer(run_id, ["first", "probe"], "true")
            _wait(lambda: self._deferred(run_id) == 1)  # the probe goes on
            time.sleep(2)
            memory = _memory(triggerer)
            started = time.monotonic()
            self._defer(run_id, ["remote"], command if self._kind == COMMANDS else "")
            _wait(lambda: self._lines("started") == TASKS)
            running = time.monotonic()
            time.sleep(_SECONDS / 2)
            memory = _memory(triggerer) - memory
            _wait(lambda: self._lines("ended") > 0)
            ending = time.monotonic()
            _wait(lambda: self._lines("ended") == TASKS)
            _wait(lambda: self._deferred(run_id) == 1)
            ended = time.monotonic()
            time.sleep(2)  # the probe writes once a second
        finally:
            triggerer.process.stop()
        lags = _Lags(self._probe)
        figures = []
        for begin, end in ((started, running), (running, ending), (ending, ended)):
            found = lags.between(begin, end)
            figures += [percentile(found, 99), max(found)]
        if self._kind == COMMANDS:
            figures.append(max((late for at, late in lags.ours if at >= started), default=0.0))
        figures.append(memory / TASKS / 1000)
        return {row.name: figure for row, figure in zip(self.rows, figures, strict=True)}

    def _defer(self, run_id: str, task_ids: list[str], command: str = "") -> None:
        """Without a command, their triggers only sleep."""
        plan = Plan(run_id, task_ids, command, _SECONDS, str(self._trace), str(self._probe))
        subprocess.run(
            [sys.executable, "-m", "benchmarks.airflow.defer", json.dumps(asdict(plan))],
            env=self._airflow.environment,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=_DEADLINE,
        )

    def _lines(self, what: str) -> int:
        path = Path(f"{self._trace}.{what}")
        return path.read_text().count("\n") if path.exists() else 0

    def _deferred(self, run_id: str) -> int:
        """How many tasks of the run still wait for their event."""
        import psycopg2

        connection = psycopg2.connect(self._postgres.url.replace("+psycopg2", ""))
        try:
            with connection, connection.cursor() as cursor:
                query = "select count(*) from task_instance where state = 'deferred' and run_id = %s"
                cursor.execute(query, (run_id,))
                return int(cursor.fetchone()[0])
        finally:
            connection.close()


class _Lags:
    """What the probe has written: when it was called, how many milliseconds too late, and for how many of
    them the loop was seen in the provider's code."""

    def __init__(self, path: Path) -> None:
        self._late: list[tuple[float, float]] = []
        self.ours: list[tuple[float, float]] = []
        seen = 0.0
        for line in path.read_text().splitlines():
            kind, at, seconds = line.split()
            if kind == "ours":
                seen += float(seconds) * 1000
                continue
            self._late.append((float(at), float(seconds) * 1000))
            self.ours.append((float(at), seen))
            seen = 0.0

    def between(self, begin: float, end: float) -> list[float]:
        """Milliseconds that the loop was late each time it was asked."""
        return [late for at, late in self._late if begin <= at <= end] or [0.0]


def _memory(triggerer: Triggerer) -> int:
    """Bytes of the triggerer's processes."""
    process = psutil.Process(triggerer.process.pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {_DEADLINE:.0f} s")
        time.sleep(0.2)
