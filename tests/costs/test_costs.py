"""An operation costs what was recorded, within a band: counted, not timed, so it is the same everywhere.

A change that makes it dearer, or cheaper, is recorded anew with it (``make costs``).
"""

from __future__ import annotations

import sys
from functools import lru_cache

import pytest

from .measurement import BLOCKS, CALLS, SYNCS, SYSTEM_CALLS, Costs, measure
from .operations import OPERATIONS
from .record import PYTHON, libraries, recorded

pytestmark = [
    pytest.mark.timeout(240),  # a server of its own for each operation, and a busy machine
    pytest.mark.skipif(sys.platform != "linux", reason="counts on Linux only"),
    pytest.mark.skipif(
        PYTHON not in recorded(), reason=f"nothing is recorded for Python {PYTHON}: make costs"
    ),
]

# The share of the recorded value, and the number, by which it may differ: the larger of both.
_BANDS = {CALLS: (0.12, 3.0), SYSTEM_CALLS: (0.12, 3.0), SYNCS: (0.0, 0.2), BLOCKS: (0.15, 8.0)}

measured = lru_cache(measure)


def differences(name: str, costs: Costs, kinds: set[str]) -> list[str]:
    """A line for each cost of these kinds that is not what was recorded."""
    record = recorded()[PYTHON]
    lines = []
    for cost, before in record["costs"][name].items():
        kind = cost.partition(":")[0]
        if kind not in kinds:
            continue
        now = costs.values[cost]
        share, number = _BANDS[kind]
        band = max(share * before, number)
        if abs(now - before) <= band or (kind == BLOCKS and now < before):
            continue  # memory is watched for what is never given back
        if now > before:
            advice = "Where what it buys is worth that, record it"
        elif kind == SYNCS:
            advice = "Is everything on disk that is promised to be? Only then record it"
        else:
            advice = "Keep what is saved, record it"
        versions = ", ".join(f"{library} {number}" for library, number in record["libraries"].items())
        lines.append(
            f"{name}: {cost}: {now:,.1f} for each, recorded are {before:,.1f} give or take {band:,.1f} "
            f"(Python {PYTHON}, {versions}). {advice}: make costs, and commit tests/costs/recorded.json "
            "with the change"
        )
    if lines and libraries() != record["libraries"]:
        here = ", ".join(f"{library} {number}" for library, number in libraries().items())
        lines.append(f"Here are {here}: other versions cost something else.")
    return lines


@pytest.mark.parametrize("name", OPERATIONS)
def test_python(name: str) -> None:
    if lines := differences(name, measured(name), {CALLS, BLOCKS}):
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.parametrize("name", OPERATIONS)
def test_system_calls(name: str) -> None:
    costs = measured(name)
    if costs.untraced:
        pytest.skip(f"system calls cannot be counted here: {costs.untraced}")
    if lines := differences(name, costs, {SYSTEM_CALLS, SYNCS}):
        pytest.fail("\n".join(lines), pytrace=False)
