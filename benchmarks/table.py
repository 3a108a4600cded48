"""The one table, in Markdown, and the raw results that it is made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, shown

BEGIN = "<!-- benchmarks: begin -->"
END = "<!-- benchmarks: end -->"
_HEADER = "| | work | measured | ratio to | ratio | target | |\n| --- | --- | --- | --- | --- | --- | --- |\n"


@dataclass(frozen=True)
class Results:
    """What one run has found.

    Attributes:
        machine: see :func:`benchmarks.machine.describe`.
        quick: whether it was a quick run.
        rows: in the order of the table.
    """

    machine: Mapping[str, str]
    quick: bool
    rows: Sequence[Row]

    @property
    def failed(self) -> list[Row]:
        """The rows that could not be measured, although they should have been."""
        return [row for row in self.rows if row.failed]

    def save(self, path: Path) -> None:
        """Write everything, every round included, as JSON."""
        text = json.dumps(
            {"machine": self.machine, "quick": self.quick, "rows": [_dump(row) for row in self.rows]},
            indent=1,
        )
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """What :meth:`save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(content["machine"], content["quick"], [_load(row) for row in content["rows"]])

    def markdown(self) -> str:
        """The machine and the table."""
        kind = "A quick run: fewer rounds, smaller amounts. " if self.quick else ""
        machine = "; ".join(f"{key}: {value}" for key, value in self.machine.items())
        return f"{kind}Measured on {machine}.\n\n{table(self.rows)}"


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines, group = [_HEADER], ""
    for row in rows:
        first = row.group if row.group != group else ""
        group = row.group
        cells = (first, row.name, _measured(row), row.reference, _ratio(row), _target(row), _verdict(row))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(lines)


def publish(text: str, path: Path) -> None:
    """Put ``text`` between the two markers of a Markdown file.

    Raises:
        ValueError: the file has no such markers.
    """
    content = path.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: expected the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _spread(values: Sequence[float], median: float, unit: str = "") -> str:
    text = f"{shown(median)}{unit}"
    return text if len(values) < 2 else f"{text} ({shown(min(values))} to {shown(max(values))})"


def _measured(row: Row) -> str:
    unit = row.unit if row.unit.startswith("/") or not row.unit else f" {row.unit}"
    return "" if row.median is None else _spread(row.values, row.median, unit)


def _ratio(row: Row) -> str:
    return "" if row.median_ratio is None else _spread(row.ratios, row.median_ratio)


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    unit = " as ratio" if row.of_ratio else f" {row.unit}"
    return f"{row.target_is} {row.target:g}{unit}"


def _verdict(row: Row) -> str:
    verdict = {None: "", True: "reached", False: "**missed**"}[row.reached]
    return "; ".join(part for part in (verdict, row.note) if part)


def _dump(row: Row) -> dict[str, Any]:
    summary = {"median": row.median, "lowest": row.lowest, "highest": row.highest}
    return asdict(row) | summary | {"median_ratio": row.median_ratio, "reached": row.reached}


def _load(content: dict[str, Any]) -> Row:
    names = Row.__dataclass_fields__
    values = {name: value for name, value in content.items() if name in names}
    for name in ("values", "ratios"):
        values[name] = tuple(values[name])
    return Row(**values)
