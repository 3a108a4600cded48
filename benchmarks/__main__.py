"""Measure everything, and write the table.

    python -m benchmarks [--quick | --full] [--only GROUP ...] [--output DIR]
    python -m benchmarks --publish DIR/results.json      put the table into README.md and docs/benchmarks.md

Writes ``results.json`` (every round of every row, and the machine), ``table.md`` and a plot for each group
into DIR, and prints the table. Ends with 1 if something could not be measured that should have been.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

from benchmarks import machine, plots
from benchmarks.in_words import in_words
from benchmarks.rows import Row, one_line, progress
from benchmarks.settings import Settings
from benchmarks.table import Results, publish

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ("transport", "commands", "durable", "output", "scale", "journal", "startup", "ssh", "airflow")
"""The modules that measure, in the order of the table."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two minutes in place of fifteen")
    parser.add_argument(
        "--full", action="store_true", help="fifteen more: as many Airflow tasks as the targets speak of"
    )
    parser.add_argument(
        "--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS)
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench", metavar="DIR")
    parser.add_argument("--publish", type=Path, metavar="RESULTS", help="measure nothing")
    arguments = parser.parse_args()
    if arguments.publish:
        results = Results.load(arguments.publish)
        publish(in_words(results.rows), ROOT / "README.md")
        publish(results.markdown(), ROOT / "docs" / "benchmarks.md")
        return 0
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    arguments.output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.output))
    try:
        results = run(Settings(arguments.quick, folder, full=arguments.full), arguments.only)
    except KeyboardInterrupt:
        progress("interrupted; nothing was written")
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write(results, arguments.output)
    print(results.markdown())
    for row in results.failed:
        progress(f"not measured: {row.group}: {row.name}: {row.note}")
    return 1 if results.failed else 0


def _interrupt(_: int, __: FrameType | None) -> None:
    """Everything that was started is ended on the way out, which no second Ctrl-C may cut short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(settings: Settings, groups: list[str] | tuple[str, ...]) -> Results:
    """Measure the groups one after another."""
    described = machine.describe(settings.folder)
    rows: list[Row] = []
    for group in groups:
        started = time.monotonic()
        folder = settings.folder / group
        folder.mkdir()
        try:
            rows += importlib.import_module(f"benchmarks.{group}").measure(replace(settings, folder=folder))
        except Exception as error:  # noqa: BLE001  the other groups are measured all the same
            note = f"failed: {one_line(error)}"
            progress(f"{group}: {note}")
            rows.append(Row(group, "everything", "", note=note, failed=True))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        progress(f"{group}: {time.monotonic() - started:.0f} s")
    return Results(described, settings.quick, rows)


def write(results: Results, output: Path) -> None:
    """Write results, table and plots."""
    results.save(output / "results.json")
    (output / "table.md").write_text(results.markdown() + "\n", encoding="utf-8")
    for group in dict.fromkeys(row.group for row in results.rows):
        try:
            plots.draw(results.rows, group, output / f"{group}.png")
        except ImportError:
            progress("no plots: matplotlib is not installed (make bench installs it)")
            return


if __name__ == "__main__":
    sys.exit(main())
