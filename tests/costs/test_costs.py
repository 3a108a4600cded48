"""An operation costs what was recorded, within a band: counted, not timed, so it is the same everywhere.

System calls and waits for the disk are what an operation really costs a machine. Their band is narrow, and a
change that makes it dearer, or cheaper, is recorded anew with it (``make costs``). How many Python functions
are called tells of the code's shape as much as of its work, and clear code may have some more of them: a
difference there is a warning, and only far more of them are a failure.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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


@dataclass(frozen=True)
class Band:
    """How far a cost may be from what was recorded: by a share of it or by a number, whichever is more.

    Attributes:
        share: of the recorded value.
        number: of calls or blocks.
        ceiling: what is more by a larger share fails, any other difference is a warning. None: each fails.
    """

    share: float
    number: float
    ceiling: float | None = None

    def holds(self, before: float, now: float) -> bool:
        """Whether the difference is within what the same code shows from one run to the next."""
        return abs(now - before) <= max(self.share * before, self.number)

    def bears(self, before: float, now: float) -> bool:
        """Whether a difference outside the band is one to be told of and no more."""
        return self.ceiling is not None and now <= before + max(self.ceiling * before, self.number)


BANDS = {
    CALLS: Band(0.12, 3.0, ceiling=0.40),
    SYSTEM_CALLS: Band(0.12, 3.0),
    SYNCS: Band(0.0, 0.2),
    BLOCKS: Band(0.15, 8.0),
}

measured = lru_cache(measure)


@dataclass(frozen=True)
class Difference:
    """A cost that is not what was recorded, and whether that is a failure."""

    text: str
    fails: bool


def differences(name: str, costs: Costs, kinds: set[str]) -> list[Difference]:
    """Those of one operation's costs, of these kinds."""
    record = recorded()[PYTHON]
    found = []
    for cost, before in record["costs"][name].items():
        kind = cost.partition(":")[0]
        if kind not in kinds:
            continue
        now, band = costs.values[cost], BANDS[kind]
        if band.holds(before, now) or (kind == BLOCKS and now < before):
            continue  # memory is watched for what is never given back
        text = (
            f"{name}: {cost}: {now:,.1f} for each, recorded are {before:,.1f} ({_versions(record)}). "
            + _advice(kind, before, now)
        )
        found.append(Difference(text, fails=not band.bears(before, now)))
    return found


def _advice(kind: str, before: float, now: float) -> str:
    if now > before:
        advice = "Where what it buys is worth that, record it"
    elif kind == SYNCS:
        advice = "Is everything on disk that is promised to be? Only then record it"
    else:
        advice = "Keep what is saved, record it"
    return f"{advice}: make costs, and commit tests/costs/recorded.json with the change"


def _versions(record: dict[str, Any]) -> str:
    """Which Python and libraries were recorded, and which are here, where those are others."""
    then, here = (
        ", ".join(f"{library} {number}" for library, number in each.items())
        for each in (record["libraries"], libraries())
    )
    return f"Python {PYTHON}, {then}" + (
        "" if here == then else f"; here are {here}, which cost something else"
    )


def tell(found: list[Difference]) -> None:
    """Fail for what fails, and warn of the rest."""
    if lines := [each.text for each in found if each.fails]:
        pytest.fail("\n".join(lines), pytrace=False)
    for each in found:
        warnings.warn(each.text, stacklevel=2)


@pytest.mark.parametrize("name", OPERATIONS)
def test_python(name: str) -> None:
    tell(differences(name, measured(name), {CALLS, BLOCKS}))


@pytest.mark.parametrize("name", OPERATIONS)
def test_system_calls(name: str) -> None:
    costs = measured(name)
    if costs.untraced:
        pytest.skip(f"system calls cannot be counted here: {costs.untraced}")
    tell(differences(name, costs, {SYSTEM_CALLS, SYNCS}))


def test_more_python_calls_are_told_of_and_only_far_more_fail() -> None:
    band = BANDS[CALLS]
    assert band.holds(100, 111)
    assert band.holds(100, 89)
    assert not band.holds(100, 113)
    assert band.bears(100, 113)
    assert band.bears(100, 20)
    assert not band.bears(100, 141)


@pytest.mark.parametrize("kind", [SYSTEM_CALLS, SYNCS, BLOCKS])
def test_nothing_else_is_only_told_of(kind: str) -> None:
    assert not BANDS[kind].bears(100, 150)
    assert not BANDS[kind].bears(100, 50)
