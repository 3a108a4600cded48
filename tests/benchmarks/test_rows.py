"""Rounds, ratios, deadlines: how the benchmark measures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from benchmarks.rows import DeadlineError, Measurement, Rounds, Row, deadline, empty_rows, percentile, shown


def _in_turn(values: list[float], calls: list[str], name: str) -> Callable[[], float]:
    remaining = iter(values)

    def measurement() -> float:
        calls.append(name)
        return next(remaining)

    return measurement


def test_measurements_take_turns_and_ratios_are_of_the_same_round() -> None:
    calls: list[str] = []
    rounds = Rounds("group", 3)
    rounds.add(_in_turn([100.0, 200.0, 400.0], calls, "bare"), Row("group", "bare", "/s"))
    rounds.add(
        _in_turn([50.0, 160.0, 240.0], calls, "ours"),
        Row("group", "ours", "/s", reference="bare", target=0.6, of_ratio=True),
    )
    bare, ours = rounds.run()
    assert calls == ["bare", "ours"] * 3
    assert (bare.values, bare.ratios) == ((100.0, 200.0, 400.0), ())
    assert ours.ratios == (0.5, 0.8, 0.6)
    assert (ours.median, ours.lowest, ours.highest, ours.median_ratio) == (160.0, 50.0, 240.0, 0.6)
    assert ours.reached is True


def test_one_measurement_may_have_several_rows() -> None:
    rounds = Rounds("group", 2)
    rounds.add(lambda: {"rate": 10.0, "p99": 2.0}, Row("group", "rate", "/s"), Row("group", "p99", "ms"))
    assert [(row.name, row.values) for row in rounds.run()] == [("rate", (10.0, 10.0)), ("p99", (2.0, 2.0))]


def test_a_measurement_that_fails_says_so_and_is_not_tried_again() -> None:
    outcomes: Iterator[float] = iter([3.0])
    calls: list[str] = []

    def fails_later() -> float:
        calls.append("fails")
        try:
            return next(outcomes)
        except StopIteration:
            raise RuntimeError("the server\nis gone") from None

    rounds = Rounds("group", 3)
    rounds.add(_in_turn([1.0, 2.0, 4.0], [], "bare"), Row("group", "bare", "/s"))
    rounds.add(fails_later, Row("group", "ours", "/s", reference="bare"))
    bare, ours = rounds.run()
    assert (bare.failed, bare.values) == (False, (1.0, 2.0, 4.0))
    assert len(calls) == 2
    assert (ours.failed, ours.values, ours.ratios) == (True, (3.0,), (3.0,))
    assert ours.note == "failed in round 2: RuntimeError: the server is gone"


def _wait() -> float:
    return float(threading.Event().wait())


def _wait_in_a_loop() -> float:
    async def work() -> float:
        await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())
        return 0.0

    return asyncio.run(work())


@pytest.mark.parametrize("hang", [_wait, _wait_in_a_loop])
def test_a_measurement_that_hangs_is_given_up(hang: Measurement) -> None:
    rounds = Rounds("group", 2)
    rounds.add(hang, Row("group", "hangs", "/s"), seconds=0.05)
    rounds.add(lambda: 1.0, Row("group", "goes on", "/s"))
    hangs, goes_on = rounds.run()
    assert hangs.failed
    assert "DeadlineError" in hangs.note
    assert hangs.values == ()
    assert goes_on.values == (1.0, 1.0)


def test_a_deadline_that_is_kept_leaves_nothing_behind() -> None:
    with deadline(30):
        pass
    with pytest.raises(DeadlineError), deadline(0.05):
        threading.Event().wait()


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("g", "n", "MB", (59.0, 61.0, 60.0), target=60, target_is="at most"), True),
        (Row("g", "n", "MB", (61.0,), target=60, target_is="at most"), False),
        (Row("g", "n", "/s", (500.0,), "r", (0.5,), target=0.6, of_ratio=True), False),
        (Row("g", "n", "/s", (500.0,), target=0.6, of_ratio=True), None),
        (Row("g", "n", "/s", target=0.6), None),
        (Row("g", "n", "/s", (500.0,)), None),
    ],
)
def test_whether_a_target_is_reached(row: Row, reached: bool | None) -> None:
    assert row.reached is reached


def test_rows_that_cannot_be_measured_say_why_and_have_not_failed() -> None:
    (row,) = empty_rows([Row("ssh", "ssh", "/s", target=5)], "there is no sshd")
    assert (row.values, row.note, row.failed, row.median, row.reached) == (
        (),
        "there is no sshd",
        False,
        None,
        None,
    )


def test_without_its_reference_a_row_has_no_ratios() -> None:
    rounds = Rounds("group", 2)
    rounds.leave_out("there is no compiler", Row("group", "bare", "/s"))
    rounds.add(lambda: 5.0, Row("group", "ours", "/s", reference="bare", target=0.6, of_ratio=True))
    bare, ours = rounds.run()
    assert (bare.values, bare.note, bare.failed) == ((), "there is no compiler", False)
    assert (ours.values, ours.ratios, ours.reached) == ((5.0, 5.0), (), None)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1000, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 99, 99.9)] == [500.0, 990.0, 999.0]
    assert percentile([7.0], 99.9) == 7.0


def test_figures_have_the_digits_that_are_worth_reading() -> None:
    assert [shown(value) for value in (12345.6, 99.94, 13.0, 0.347)] == ["12,346", "99.9", "13", "0.35"]
