"""A thousand deferred tasks in one real triggerer: what each takes, and how late the event loop is.

As many task instances are put into the database as deferred, as their workers would have done it; no
scheduler runs. What is done to them, one after another:

- They start. Each command then prints a line a second.
- The triggerer is killed, with all that belongs to it, and another one takes over.
- All commands end, within five seconds.

A trigger among them measures how late the loop calls it, and a thread that looks on while the loop is late
tells whether it is in the provider's code. The same is done with triggers that only sleep: that is what
Airflow itself costs. The memory is that of the triggerer's processes while all run, beyond what it was
before: then one command had been run already, and all that is imported for it was.

No command may have run twice, and none may have failed: else there are no figures.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.airflow.deferral import DEADLINE, Database, Plan, defer, wait
from benchmarks.rows import Rounds, Row, percentile
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import LocalAirflow, PostgresServer, Triggerer

SLEEPING, COMMANDS = "sleeping triggers", "deferred commands"
ON_SERVERS = "deferred commands on {} servers"
TASKS = 1000
_HEALTH_CHECK_SECONDS = 5
"""After which Airflow gives away what a dead triggerer had: shorter than starting another one takes."""
_PRINTING_SECONDS = 15.0
_PHASES = ("until all have started", "while all run", "until all have ended")
_GOAL_MS, _GOAL_SECONDS = 100.0, 15.0
DAG_ID = "deferred_tasks"
_DAG = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from remsvc_provider.operators.remsvc import RemSvcOperator

with DAG("{dag_id}", schedule=None):
    EmptyOperator(task_id="probe")
    EmptyOperator(task_id="first")
    # For each trigger that is started, Airflow reads all of the DAG: the less there is in it, the better.
    RemSvcOperator.partial(task_id="remote", commands=[{{"cmd": "true"}}]).expand(cwd=["/"] * {tasks})
"""
LINE = "a printed line, as long as lines of logs usually are"
# $1: trace. Bash waits without starting a process: a thousand sleeps a second would be measured as well.
_COMMAND = f"""\
exec 9<> <(:)
echo x >> "$1.started"
until [ -e "$1.stop" ]; do echo "{LINE}"; read -rt 1 -u 9; done
read -rt "$((RANDOM % 4)).$((RANDOM % 10))" -u 9
echo x >> "$1.ended"
"""


def write_dag(dags: Path) -> None:
    """Write the DAG of which they are."""
    (dags / f"{DAG_ID}.py").write_text(_DAG.format(dag_id=DAG_ID, tasks=TASKS), encoding="utf-8")


def rows(kind: str) -> tuple[Row, ...]:
    """Without figures."""
    number = f"{TASKS:,}"
    ours = kind != SLEEPING

    def row(what: str, unit: str, target: float | None = None) -> Row:
        return Row(
            "airflow",
            f"{number} {kind}: {what}",
            unit,
            reference=f"{number} {SLEEPING}: {what}" if ours else "",
            target=target if ours else None,
            target_is="at most",
        )

    lag = [
        row(f"loop late {phase}, {which}", "ms", _GOAL_MS if which == "p99" else None)
        for phase in _PHASES
        for which in ("p99", "at most")
    ]
    if ours:
        lag.append(Row("airflow", f"{number} {kind}: loop late in the provider, at most", "ms"))
    return (
        *lag,
        row("until all have started", "s"),
        row("until another triggerer has all of them", "s", _GOAL_SECONDS),
        *([Row("airflow", f"{number} {kind}: until all their logs go on in it", "s")] if ours else []),
        row("until all have ended", "s"),
        row("memory each", "KB"),
    )


def add(
    rounds: Rounds,
    settings: Settings,
    airflow: LocalAirflow,
    postgres: PostgresServer,
    kinds: Sequence[tuple[str, Sequence[str]]],
) -> None:
    """Put them into the rounds. No scheduler and no triggerer of this Airflow may run then, and none is to be
    started for anything else.

    Args:
        kinds: what is deferred, and the Airflow connections that it uses.
    """
    threshold = "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD"
    airflow.environment[threshold] = str(_HEALTH_CHECK_SECONDS)
    for kind, connections in kinds:
        measurement = _Measurement(kind, connections, settings, airflow, postgres)
        rounds.add(measurement, *measurement.rows, seconds=3 * DEADLINE)


class _Measurement:
    def __init__(
        self,
        kind: str,
        connections: Sequence[str],
        settings: Settings,
        airflow: LocalAirflow,
        postgres: PostgresServer,
    ) -> None:
        self._kind = kind
        self._connections = connections
        self._airflow = airflow
        self._database = Database(postgres)
        self._folder = settings.new_folder("deferred")
        self._trace = self._folder / "trace"
        self.rows = rows(kind)

    def __call__(self) -> dict[str, float]:
        ours = self._kind != SLEEPING
        script = self._folder / "command.sh"
        script.write_text(_COMMAND, encoding="utf-8")
        self._airflow.wait_for_dag(DAG_ID)
        run_id = self._airflow.api.trigger(DAG_ID).run_id
        triggerer = self._airflow.start_triggerer()
        try:
            self._defer(run_id, ["probe", "first"], "true")  # what is loaded for a command, is loaded then
            wait(lambda: self._database.tasks(run_id, "deferred") == 1)  # the probe goes on
            time.sleep(2)
            before = memory(triggerer)
            started = time.monotonic()
            self._defer(run_id, ["remote"], f"exec bash {script} {self._trace}" if ours else "")
            wait(lambda: self._lines("started") >= TASKS)
            running = time.monotonic()
            time.sleep(_PRINTING_SECONDS)
            used = memory(triggerer) - before
            printed = time.monotonic()

            begun = self._lines(mark := "watched" if ours else "started")
            triggerer.process.send_signal_to_all(signal.SIGKILL)
            triggerer.process.stop()
            triggerer = self._airflow.start_triggerer()
            taking_over = time.monotonic()
            wait(lambda: self._lines(mark) - begun >= TASKS)
            taken_over = time.monotonic()
            if ours:
                logs = Logs(self._airflow, run_id, triggerer)
                wait(lambda: logs.begun() >= TASKS)
            going_on = time.monotonic()
            time.sleep(5)

            ending = time.monotonic()
            self._trace.with_suffix(".stop").touch()
            wait(lambda: self._lines("ended") >= TASKS)
            wait(lambda: self._database.tasks(run_id, "deferred") == 1)
            ended = time.monotonic()
            time.sleep(2)  # the probe writes once a second
        finally:
            self._trace.with_suffix(".stop").touch()
            triggerer.process.stop()
        self._check(run_id)
        lags = Lags(self._trace.with_suffix(".probe"))
        figures = []
        for begin, end in ((started, running), (running, printed), (ending, ended)):
            found = lags.between(begin, end)
            figures += [percentile(found, 99), max(found)]
        if ours:
            figures.append(max((late for at, late in lags.ours if at >= started), default=0.0))
        figures += [running - started, taken_over - taking_over]
        if ours:
            figures.append(going_on - taking_over)
        figures += [ended - ending, used / TASKS / 1000]
        return {row.name: figure for row, figure in zip(self.rows, figures, strict=True)}

    def _defer(self, run_id: str, task_ids: list[str], command: str = "") -> None:
        """Without a command, their triggers only sleep."""
        defer(self._airflow, Plan(run_id, task_ids, command, list(self._connections), str(self._trace)))

    def _lines(self, what: str) -> int:
        path = self._trace.with_suffix(f".{what}")
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def _check(self, run_id: str) -> None:
        """Raise :class:`RuntimeError` where commands ran twice, or not to a good end."""
        if self._kind == SLEEPING:
            return
        begun, ended = self._lines("started"), self._lines("ended")
        succeeded = self._database.succeeded(run_id, "remote")
        if not begun == ended == succeeded == TASKS:
            raise RuntimeError(f"of {TASKS}, {begun} began, {ended} ended, {succeeded} tasks succeeded")


class Logs:
    """Those that one triggerer writes for the tasks."""

    def __init__(self, airflow: LocalAirflow, run_id: str, triggerer: Triggerer) -> None:
        folder = airflow.logs / f"dag_id={DAG_ID}" / f"run_id={run_id}" / "task_id=remote"
        self._waited_for = {
            folder / f"map_index={index}" / f"attempt=1.log.trigger.{triggerer.job_id}.log"
            for index in range(TASKS)
        }

    def begun(self) -> int:
        """How many have a line that the command has printed."""
        for path in list(self._waited_for):
            with suppress(FileNotFoundError):
                if LINE.encode() in path.read_bytes():
                    self._waited_for.discard(path)
        return TASKS - len(self._waited_for)


class Lags:
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
        """Milliseconds that the loop was late, of each wait of which a part lies between these times.

        Raises:
            RuntimeError: there is none: nobody has looked.
        """
        found = [late for at, late in self._late if at >= begin and at - late / 1000 <= end]
        if not found:
            raise RuntimeError("nothing was measured of the event loop in this time")
        return found


def memory(triggerer: Triggerer) -> int:
    """Bytes of the triggerer's processes."""
    process = psutil.Process(triggerer.process.pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
