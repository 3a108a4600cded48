"""How long it takes from a line's being printed on the other machine to its being in the task's log.

A command prints the time twice a second. Whoever opens the task's log sees what is in its files: they are
read here every few milliseconds, and the time at which a line is first seen is compared with the time in it.
The three operators run at the same time, with a task each.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.airflow import runs
from benchmarks.airflow.operators import Operator
from benchmarks.rows import Rounds, Row, percentile
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

    from local_airflow import LocalAirflow

WORK = "print_times"
_LOOK = 0.005
"""Seconds between two looks at the files."""
_PAUSE = 0.5
_LINE = re.compile(rb"printed at (\d+\.\d{9}),")


def _lines(settings: Settings) -> int:
    return settings.amount(40, 10)


def write_dags(dags: Path, settings: Settings, operators: Sequence[Operator]) -> None:
    """Write a DAG for each operator."""
    # No name with a dot: SSHOperator would take the command for the name of a template.
    script = dags.parent / "print_times"
    script.write_text(
        f"for n in $(seq {_lines(settings)})\n"
        f'do echo "printed at $(date +%s.%N), $n"; sleep {_PAUSE}; done\n',
        encoding="utf-8",
    )
    for operator in operators:
        operator.write_dag(dags, WORK, f"sh {script}", 1)


def rows(operator: Operator) -> tuple[Row, Row]:
    """Without figures."""
    name = f"from a printed line to the task's log: {operator.name}"
    return Row("airflow", f"{name}: p50", "ms"), Row("airflow", f"{name}: p99", "ms")


def add(rounds: Rounds, settings: Settings, airflow: LocalAirflow, operators: Sequence[Operator]) -> None:
    """Put the delays of all operators into the rounds."""

    def measure() -> dict[str, float]:
        with Reader(airflow.logs, f"dag_id={WORK}_*/**/*.log") as reader:
            started = [runs.start(airflow, operator.dag_id(WORK)) for operator in operators]
            for run in started:
                runs.finish(airflow, run, timeout=300)
            time.sleep(1)
        figures = {}
        for operator in operators:
            delays = reader.delays(operator.dag_id(WORK))
            if len(delays) != _lines(settings):
                raise RuntimeError(
                    f"{operator.name}: {len(delays)} of {_lines(settings)} lines are in the task's log"
                )
            for row, percent in zip(rows(operator), (50, 99), strict=True):
                figures[row.name] = percentile(delays, percent) * 1000
        return figures

    rounds.add(measure, *(row for operator in operators for row in rows(operator)), seconds=400)


class Reader:
    """Follows the files of tasks' logs in a thread. A context manager.

    Args:
        logs: the folder of all logs.
        pattern: of those to follow, as for ``Path.glob``.
    """

    def __init__(self, logs: Path, pattern: str) -> None:
        self._logs = logs
        self._pattern = pattern
        self._read: dict[Path, bytes] = {}
        self._offsets: dict[Path, int] = {}
        self._seen: dict[tuple[str, bytes], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def delays(self, dag_id: str) -> list[float]:
        """Seconds, of each line that a task of this DAG has printed."""
        return [
            seen - float(printed) for (where, printed), seen in self._seen.items() if f"={dag_id}/" in where
        ]

    def _follow(self) -> None:
        files: list[Path] = []
        listed = 0.0
        while not self._over.wait(_LOOK):
            if time.monotonic() - listed > 0.05:
                files = list(self._logs.glob(self._pattern))
                listed = time.monotonic()
            for path in files:
                with suppress(FileNotFoundError):
                    self._look(path)

    def _look(self, path: Path) -> None:
        offset = self._offsets.get(path, 0)
        if path.stat().st_size <= offset:
            return
        now = time.time()
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        self._offsets[path] = offset + len(data)
        text = self._read.get(path, b"") + data
        for match in _LINE.finditer(text):
            # A line may be there twice: the command's own text, or what is shown again at the end.
            self._seen.setdefault((str(path.parent), match.group(1)), now)
        self._read[path] = text[-100:]
