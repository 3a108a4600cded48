"""Sharing what there is only so much of, and waiting for it."""

from __future__ import annotations

import asyncio

import pytest

from remsvc.server.bounds.room import Room
from remsvc.server.bounds.shares import Shares
from remsvc.server.caller import ANONYMOUS
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.tally import Tally

DEADLINE = 60.0


class Seats(Room):
    """Five seats, for whoever comes first."""

    def __init__(self) -> None:
        self.seated: Tally[str] = Tally()
        super().__init__(self.seated)

    def has_room(self, whose: str, amount: int = 1) -> bool:
        return self.seated.total + amount <= 5

    def refusal(self, whose: str) -> RefusedError:
        return exhausted(f"no seat for {whose}", 1.0)


def taken_by(shares: Shares, whose: str) -> int:
    """How much one gets who takes one after the other."""
    while shares.has_room(whose):
        shares.add(whose)
    return shares.of(whose)


def test_one_identity_leaves_a_fifth_for_the_others_and_the_next_a_fifth_of_that() -> None:
    shares = Shares(100)
    assert [taken_by(shares, whose) for whose in ("greedy", "second", "third")] == [81, 16, 3]
    assert shares.total == 100


def test_of_callers_who_cannot_be_told_apart_all_together_get_all() -> None:
    assert taken_by(Shares(100), ANONYMOUS) == 100


def test_nothing_is_kept_of_who_has_nothing() -> None:
    tally: Tally[str] = Tally()
    tally.add("etl", 3)
    tally.add("web")
    tally.remove("etl", 3)
    assert (list(tally), tally.of("etl"), tally.total) == (["web"], 0, 1)


async def waiting(seats: Seats, whose: str, amount: int = 1) -> asyncio.Task[None]:
    task = asyncio.ensure_future(seats.wait(whose, amount))
    await asyncio.sleep(0)
    return task


async def test_who_waits_gets_room_in_the_order_of_coming() -> None:
    seats = Seats()
    seats.take("etl", 5)
    large, small = await waiting(seats, "web", 3), await waiting(seats, "web", 1)
    seats.give_back("etl", 2)
    seats.serve_all()
    await asyncio.sleep(0)
    assert (large.done(), small.done(), seats.waiting("web")) == (False, False, 2)
    seats.give_back("etl", 3)
    seats.serve_all()
    await asyncio.wait_for(asyncio.gather(large, small), DEADLINE)
    assert (seats.seated.of("web"), seats.waiting("web")) == (4, 0)


async def test_who_gives_up_lets_the_next_one_go_first() -> None:
    seats = Seats()
    seats.take("etl", 4)
    large, small = await waiting(seats, "web", 3), await waiting(seats, "web", 1)
    large.cancel()
    await asyncio.wait_for(small, DEADLINE)
    assert (seats.seated.of("web"), seats.waiting("web")) == (1, 0)


async def test_who_is_cancelled_when_it_was_given_room_gives_it_back() -> None:
    seats = Seats()
    seats.take("etl", 5)
    task = await waiting(seats, "web")
    seats.give_back("etl", 5)
    seats.serve_all()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seats.seated.total == 0


def test_who_may_not_have_more_is_told() -> None:
    seats = Seats()
    seats.take("etl", 5)
    with pytest.raises(RefusedError, match="no seat for web"):
        seats.take("web")
