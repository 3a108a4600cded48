"""What operations cost when that was last recorded: ``python -m tests.costs.record`` (``make costs``)."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .measurement import measure
from .operations import OPERATIONS

PYTHON = ".".join(platform.python_version_tuple()[:2])
_FILE = Path(__file__).with_name("recorded.json")
_LIBRARIES = ("grpcio", "protobuf")
_ROUNDS = 3


def recorded() -> dict[str, Any]:
    """By minor version of Python; each has its libraries' versions, and the costs by operation."""
    records: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return records


def libraries() -> dict[str, str]:
    """The versions here, of which the counts depend a little."""
    return {name: version(name) for name in _LIBRARIES}


def main() -> int:
    """Measure all operations and record what they cost with this Python."""
    costs: dict[str, dict[str, float]] = {}
    for name in OPERATIONS:
        rounds = [measure(name) for _ in range(_ROUNDS)]
        if untraced := rounds[0].untraced:
            print(f"nothing is recorded: system calls cannot be counted here: {untraced}", file=sys.stderr)
            return 1
        costs[name] = {
            cost: round(statistics.median(each.values[cost] for each in rounds), 1)
            for cost in rounds[0].values
        }
    records = recorded() if _FILE.exists() else {}
    before = records.get(PYTHON, {}).get("costs", {})
    for name, values in costs.items():
        for cost, value in values.items():
            old = before.get(name, {}).get(cost)
            print(
                f"{PYTHON}  {name}: {cost}: {value:,.1f}"
                + (f", before {old:,.1f}" if old is not None else "")
            )
    records[PYTHON] = {"libraries": libraries(), "costs": costs}
    _FILE.write_text(json.dumps(dict(sorted(records.items())), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
