"""What becomes of much output in tasks' logs: how long until all of it is there, and who has to wait for it.

A command prints 52,000 lines (5 MB) at once. All of them must be in the log, in their order. Beside it, in
the same triggerer, fifty coroutines want to be called every 50 ms: how late that is shows for how long the
event loop was held up. In a full run, ten such commands print at the same time while an eleventh prints a
line a second, and one command prints ten times as much.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.airflow import log_delay, runs
from benchmarks.airflow.operators import REMSVC_CONNECTION, REMSVC_OPERATOR, SSH_OPERATOR, Operator
from benchmarks.rows import Rounds, Row, percentile
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import DagRun, LocalAirflow

LINES = 52_000
_WORK = "log_flood"
_SECONDS = 600
_NUMBER = re.compile(rb"(\d{6}) x{90}")
_DAG = """\
from airflow.sdk import DAG
from benchmarks.airflow.tick_probe import TickOperator
from remsvc_provider.operators.remsvc import RemSvcOperator

with DAG("{dag_id}", schedule=None, max_active_tasks=1000):
    TickOperator(task_id="ticks", path="{probe}")
    RemSvcOperator(task_id="alone", grpc_conn_id="{connection}", commands=[{{"cmd": "{alone}"}}])
    RemSvcOperator.partial(task_id="flood", grpc_conn_id="{connection}", log_drain={seconds}).expand(
        commands=[[{{"cmd": "{flood}"}}]] * {tasks}
    )
"""


@dataclass(frozen=True)
class Flood:
    """Commands that print at the same time.

    Attributes:
        name: for its DAG.
        tasks: how many commands.
        lines: that each of them prints.
    """

    name: str
    tasks: int
    lines: int

    @property
    def dag_id(self) -> str:
        return f"{_WORK}_{self.name}"

    @property
    def what(self) -> str:
        """For people."""
        return f"{self.tasks} x {self.lines:,} lines" if self.tasks > 1 else f"{self.lines:,} lines"


ONE, TEN, LARGE = Flood("one", 1, LINES), Flood("ten", 10, LINES), Flood("large", 1, 10 * LINES)


def write_dags(dags: Path, operators: Sequence[Operator]) -> None:
    """Write the commands' scripts, a DAG for each operator and one for each flood."""
    folder = dags.parent
    # No name with a dot: SSHOperator would take the command for the name of a template. $1: lines
    (folder / "flood").write_text(
        'awk -v lines="$1" \'BEGIN { x = "x"; while (length(x) < 90) x = x "x";'
        ' for (n = 1; n <= lines; n++) printf "%06d %s\\n", n, x }\'\n',
        encoding="utf-8",
    )
    # $1: a file that ends it
    (folder / "alone").write_text(
        'until [ -e "$1" ]; do echo "printed at $(date +%s.%N), once a second"; sleep 1; done\n',
        encoding="utf-8",
    )
    for operator in operators:
        if operator in (SSH_OPERATOR, REMSVC_OPERATOR):
            operator.write_dag(dags, _WORK, f"sh {folder}/flood {LINES}", 1)
    for flood in (ONE, TEN, LARGE):
        probe = _probe(dags.parent, flood)
        text = _DAG.format(
            dag_id=flood.dag_id,
            probe=probe,
            connection=REMSVC_CONNECTION,
            alone=f"sh {folder}/alone {probe}.stop",
            flood=f"sh {folder}/flood {flood.lines}",
            seconds=_SECONDS,
            tasks=flood.tasks,
        )
        (dags / f"{flood.dag_id}.py").write_text(text, encoding="utf-8")


def rows(operator: Operator) -> tuple[Row, ...]:
    """Without figures; none of an operator that is not measured here."""
    if operator not in (SSH_OPERATOR, REMSVC_OPERATOR):
        return ()
    ours = operator is REMSVC_OPERATOR
    name = f"a task of {LINES:,} lines, all of them in its log"
    return (
        Row(
            "airflow",
            f"{name}: {operator.name}",
            "s",
            reference=f"{name}: {SSH_OPERATOR.name}" if ours else "",
            target=1.5 if ours else None,
            target_is="at most",
            of_ratio=True,
        ),
    )


def flood_rows(flood: Flood) -> tuple[Row, ...]:
    """Without figures."""

    def row(what: str, unit: str, target: float | None = None) -> Row:
        return Row("airflow", f"{flood.what} at once: {what}", unit, target=target, target_is="at most")

    return (
        row("from the first to the last of them in the log", "s"),
        row("ticks of the event loop late, p99", "ms"),
        row("ticks of the event loop late, at most", "ms", 100),
        row("from a line printed by another task to its log, p50", "ms"),
        row("from a line printed by another task to its log, at most", "ms", 100),
        row("the longest of these logs takes, of the shortest", "times"),
        row("memory of the triggerer, more", "MB"),
    )


def add(rounds: Rounds, settings: Settings, airflow: LocalAirflow, operators: Sequence[Operator]) -> None:
    """Put them into the rounds."""
    for operator in operators:
        if measured := rows(operator):
            rounds.add(partial(_run_of, airflow, operator), *measured, seconds=_SECONDS)
    for flood in (ONE, TEN, LARGE) if settings.full else (ONE,):
        rounds.add(partial(_flood, airflow, flood), *flood_rows(flood), seconds=_SECONDS)


def _run_of(airflow: LocalAirflow, operator: Operator) -> float:
    """Seconds that a DAG run takes."""
    started = time.monotonic()
    run = runs.start(airflow, operator.dag_id(_WORK))
    runs.finish(airflow, run, timeout=_SECONDS)
    seconds = time.monotonic() - started
    logs = [path for path in _logs(airflow, run, "remote_*") if _NUMBER.search(path.read_bytes())]
    # SSHOperator breaks a line in two where what it reads at a time ends.
    _check(logs, 1, LINES, in_order=operator is REMSVC_OPERATOR)
    return seconds


def _flood(airflow: LocalAirflow, flood: Flood) -> dict[str, float]:
    probe = _probe(airflow.home.parent, flood)
    triggerer = psutil.Process(airflow.triggerers[0].process.pid)
    begun: dict[Path, float] = {}
    ended: dict[Path, float] = {}
    memory: list[int] = []
    with log_delay.Reader(airflow.logs, f"dag_id={flood.dag_id}/**/task_id=alone/**/*.log") as reader:
        run = runs.start(airflow, flood.dag_id)
        deadline = time.monotonic() + _SECONDS
        while len(ended) < flood.tasks:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(ended)} of {flood.tasks} logs are complete after {_SECONDS} s")
            time.sleep(0.1)
            processes = (triggerer, *triggerer.children(recursive=True))
            memory.append(sum(process.memory_info().rss for process in processes))
            for path in _logs(airflow, run, "flood"):
                end = _end(path)
                if _NUMBER.search(end):
                    begun.setdefault(path, time.monotonic())
                if b"%06d x" % flood.lines in end:
                    ended.setdefault(path, time.monotonic())
        Path(f"{probe}.stop").touch()
        runs.finish(airflow, run, timeout=_SECONDS)
        time.sleep(1)
    _check(list(ended), flood.tasks, flood.lines, in_order=True)
    late = [float(line) * 1000 for line in probe.read_text().splitlines()]
    delays = [seconds * 1000 for seconds in reader.delays(flood.dag_id)]
    each = [ended[path] - begun[path] for path in ended]
    figures = (
        max(ended.values()) - min(begun.values()),
        percentile(late, 99),
        max(late),
        percentile(delays, 50),
        max(delays),
        max(each) / min(each),
        (max(memory) - memory[0]) / 1e6,
    )
    return {row.name: figure for row, figure in zip(flood_rows(flood), figures, strict=True)}


def _probe(folder: Path, flood: Flood) -> Path:
    return folder / f"ticks-{flood.name}"


def _logs(airflow: LocalAirflow, run: DagRun, task_id: str) -> list[Path]:
    where = f"dag_id={run.dag_id}/run_id={run.run_id}/**/task_id={task_id}/**/*.log*"
    return [*airflow.logs.glob(where)]


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        return file.read()


def _check(logs: Sequence[Path], tasks: int, lines: int, *, in_order: bool) -> None:
    """Raises :class:`RuntimeError` unless everything is there."""
    if len(logs) != tasks:
        raise RuntimeError(f"{len(logs)} logs of {tasks} tasks")
    for path in logs:
        found = [int(number) for number in _NUMBER.findall(path.read_bytes())]
        if in_order and found != list(range(1, lines + 1)):
            raise RuntimeError(f"{len(found)} of {lines} lines are in the log, or not in their order")
