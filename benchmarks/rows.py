"""Rows of the table, and how they are measured: in turns, so that a ratio compares neighbours in time."""

from __future__ import annotations

import math
import signal
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Literal

Measurement = Callable[[], float | Mapping[str, float]]

_AGAIN_SECONDS = 30.0
"""After a deadline, until it is said once more to code that has swallowed it. Time to clean up in."""

_LONGEST_ERROR = 160


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        group: the group of measurements that it belongs to.
        name: what was done; unique in its group.
        unit: of the values: ``/s``, ``MB/s``, ``ms``, ``MB``, ...
        values: one for each round.
        reference: the row of the same group that this one is compared with; empty for none.
        ratios: value by the reference's value of the same round, in the order of the rounds.
        target: what is to be reached; None where nothing is asked for.
        target_is: which side of the target is the good one.
        of_ratio: the target speaks of the ratio's median, not of the value's.
        note: for the reader; why there are no values, where there are none.
        failed: it could not be measured, although it should have been.
    """

    group: str
    name: str
    unit: str
    values: tuple[float, ...] = ()
    reference: str = ""
    ratios: tuple[float, ...] = ()
    target: float | None = None
    target_is: Literal["at least", "at most"] = "at least"
    of_ratio: bool = False
    note: str = ""
    failed: bool = False

    @property
    def median(self) -> float | None:
        """The median of the values; None without any."""
        return statistics.median(self.values) if self.values else None

    @property
    def lowest(self) -> float | None:
        return min(self.values, default=None)

    @property
    def highest(self) -> float | None:
        return max(self.values, default=None)

    @property
    def median_ratio(self) -> float | None:
        """The median of the ratios; None without any."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def judged(self) -> float | None:
        """What the target speaks of."""
        return self.median_ratio if self.of_ratio else self.median

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without a target or a figure."""
        if self.target is None or self.judged is None:
            return None
        return self.judged >= self.target if self.target_is == "at least" else self.judged <= self.target


def empty_rows(rows: Sequence[Row], why: str) -> list[Row]:
    """The rows without figures, because they cannot be measured here: ``why`` in one line."""
    return [replace(row, note=why) for row in rows]


class DeadlineError(Exception):
    """A measurement took too long."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise :class:`DeadlineError` in the main thread, whatever it is doing, when the time is up."""

    def passed(_: int, __: FrameType | None) -> None:
        raise DeadlineError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, passed)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class _Entry:
    measurement: Measurement | None
    rows: tuple[Row, ...]
    seconds: float
    failure: str = ""
    results: dict[int, Mapping[str, float]] = field(default_factory=dict)


class Rounds:
    """Measurements that are repeated in turns: each once in the first round, then each once more.

    A measurement that fails or takes too long is not tried again, and its rows say so; the others go on.
    """

    def __init__(self, group: str, count: int) -> None:
        self._group = group
        self._count = count
        self._entries: list[_Entry] = []

    def add(self, measurement: Measurement, *rows: Row, seconds: float = 60.0) -> None:
        """Add a measurement, and what it measures.

        Args:
            measurement: returns the figure of its one row, or a figure for the name of each row.
            rows: without values; those that the rounds find are put in.
            seconds: the most that one round of it may take.
        """
        self._entries.append(_Entry(measurement, rows, seconds))

    def leave_out(self, why: str, *rows: Row) -> None:
        """Add rows that cannot be measured here, ``why`` in one line; they are no reference to others."""
        self._entries.append(_Entry(None, tuple(empty_rows(rows, why)), 0.0))

    def run(self) -> list[Row]:
        """Measure everything; the rows in the order in which they were added."""
        for number in range(1, self._count + 1):
            for entry in self._entries:
                if entry.measurement is not None and not entry.failure:
                    self._measure(entry, entry.measurement, number)
        found = {
            row.name: {number: result[row.name] for number, result in entry.results.items()}
            for entry in self._entries
            for row in entry.rows
        }
        return [_filled(row, entry, found) for entry in self._entries for row in entry.rows]

    def _measure(self, entry: _Entry, measurement: Measurement, number: int) -> None:
        names = [row.name for row in entry.rows]
        try:
            with deadline(entry.seconds):
                result = measurement()
            results = result if isinstance(result, Mapping) else {names[0]: result}
            entry.results[number] = {name: results[name] for name in names}
        except Exception as error:  # noqa: BLE001  said in the table, and by the exit code
            entry.failure = f"failed in round {number}: {one_line(error)}"
            progress(f"{self._group}: {names[0]}: {entry.failure}")
            return
        for row in entry.rows:
            progress(
                f"{self._group}: round {number} of {self._count}: "
                f"{row.name}: {shown(entry.results[number][row.name])} {row.unit}"
            )


def _filled(row: Row, entry: _Entry, found: Mapping[str, Mapping[int, float]]) -> Row:
    values = found[row.name]
    reference = found.get(row.reference, {})
    ratios = tuple(value / reference[number] for number, value in values.items() if reference.get(number))
    note = "; ".join(part for part in (row.note, entry.failure) if part)
    return replace(row, values=tuple(values.values()), ratios=ratios, note=note, failed=bool(entry.failure))


def shown(value: float) -> str:
    """A figure with as many digits as are worth reading."""
    if value >= 100 or (value >= 10 and value == round(value)):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of them do not exceed: always one that was measured."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def progress(text: str) -> None:
    """Tell whoever waits what is going on."""
    print(text, file=sys.stderr, flush=True)


def one_line(error: Exception) -> str:
    """An error as a note for the table."""
    text = textwrap.shorten(str(error), _LONGEST_ERROR, placeholder=" ...")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
