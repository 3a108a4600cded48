"""How late an event loop was in a phase of a benchmark: a stall counts in each phase that it touches."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.airflow.deferred_tasks import Lags


@pytest.fixture
def lags(tmp_path: Path) -> Lags:
    """A loop that stood still from 10 to 25, and was in time before and after."""
    path = tmp_path / "probe"
    path.write_text("lag 10.0 0.001\nlag 25.0 15.0\nlag 25.01 0.002\n")
    return Lags(path)


@pytest.mark.parametrize(("begin", "end"), [(9, 12), (12, 20), (20, 25.005), (24, 25)])
def test_a_stall_counts_in_each_phase_that_it_touches(lags: Lags, begin: float, end: float) -> None:
    assert max(lags.between(begin, end)) == 15_000


def test_a_stall_before_does_not_count(lags: Lags) -> None:
    assert lags.between(25.005, 26) == [2.0]


def test_a_phase_of_which_nothing_is_known_is_not_one_without_lags(lags: Lags) -> None:
    with pytest.raises(RuntimeError, match="nothing was measured"):
        lags.between(30, 40)
