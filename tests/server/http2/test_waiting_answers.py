"""How much of a connection's answers may wait, and what is reserved for those that are being made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from remsvc.server.http2.unsent import Unsent
from remsvc.server.http2.waiting_answers import WaitingAnswers

DEADLINE = 60.0
KIB = 1024
MOST_EACH, MOST = 4 * KIB * KIB, 24 * KIB * KIB
WIDE = KIB * KIB


class CallInHand:
    """A call of which all that matters here is whether it was made to fail."""

    def __init__(self) -> None:
        self.failed: Exception | None = None

    def fail(self, refused: Exception) -> None:
        self.failed = refused


class ConnectionInHand:
    """A connection of which only the answers matter.

    Attributes:
        cut_for: why it was cut; empty where it was not.
    """

    def __init__(self, unsent: Unsent) -> None:
        self.answers = WaitingAnswers(unsent, asyncio.get_running_loop())
        self.cut_for = ""

    def cut(self, reason: str) -> None:
        self.cut_for = reason


class Server:
    """The connections of a server, and what of their answers waits."""

    def __init__(self, most_each: int = MOST_EACH, most: int = MOST) -> None:
        self._connections: list[ConnectionInHand] = []
        self.unsent = Unsent(self._connections, most_each, most)

    def connection(self) -> ConnectionInHand:
        connection = ConnectionInHand(self.unsent)
        self._connections.append(connection)
        return connection


def call() -> Any:
    return CallInHand()


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def answers(server: Server) -> WaitingAnswers:
    return server.connection().answers


async def waiting(
    answers: WaitingAnswers, each: Any, ready: Callable[[], bool], size: int
) -> asyncio.Task[None]:
    """A call that waits already."""
    task = asyncio.ensure_future(answers.wait(each, ready, size))
    await asyncio.sleep(0)
    return task


# What is reserved


async def test_half_of_what_may_wait_is_granted_and_then_little_to_each(
    server: Server, answers: WaitingAnswers
) -> None:
    calls = [call() for _ in range(12)]
    granted = [answers.grant(each, 0, WIDE) for each in calls]
    assert granted == [256 * KIB] * 8 + [16 * KIB] * 4
    assert answers.total == server.unsent.total == sum(granted)
    for each, size in zip(calls, granted, strict=True):
        assert answers.give_back(each) == size
        assert answers.give_back(each) == 0  # it has nothing more
    assert answers.total == server.unsent.total == 0
    assert answers.grant(call(), 0, WIDE) == 256 * KIB


async def test_no_more_is_granted_than_the_caller_takes_and_never_too_little(answers: WaitingAnswers) -> None:
    assert answers.grant(call(), 0, 100_000) == 100_000
    assert answers.grant(call(), 0, 1) == KIB
    assert answers.grant(call(), 0, 0) == KIB


@pytest.mark.parametrize(("own", "granted"), [(0, 16 * KIB), (6 * KIB, 10 * KIB), (16 * KIB, KIB)])
async def test_of_what_waits_already_less_is_granted(answers: WaitingAnswers, own: int, granted: int) -> None:
    answers.count(MOST_EACH // 2)
    assert answers.grant(call(), own, WIDE) == granted


async def test_what_all_connections_have_together_bounds_a_grant() -> None:
    server = Server(most=MOST_EACH)
    for _ in range(2):
        server.connection().answers.count(MOST_EACH // 2 - 50 * KIB)
    assert server.connection().answers.grant(call(), 0, WIDE) == 100 * KIB


async def test_an_answer_that_was_granted_leaves_room_beside_others(
    server: Server, answers: WaitingAnswers
) -> None:
    """Eight watches write all that was granted to them, and other answers still have room."""
    calls = [call() for _ in range(8)]
    for each in calls:
        answers.grant(each, 0, WIDE)
    for number, each in enumerate(calls, 1):
        answers.give_back(each)
        answers.count(number * 256 * KIB)
    assert answers.total == server.unsent.total == MOST_EACH // 2
    assert answers.has_room(0, 256 * KIB)
    answers.count(0)
    assert answers.total == server.unsent.total == 0


# Who waits


async def test_a_call_goes_on_when_it_may(server: Server, answers: WaitingAnswers) -> None:
    may = False
    task = await waiting(answers, call(), lambda: may, 1000)
    assert server.unsent.total == 1000
    answers.wake()
    await asyncio.sleep(0)
    assert not task.done()
    may = True
    answers.wake()
    await asyncio.wait_for(task, DEADLINE)
    assert server.unsent.total == 0
    assert not answers.has_waiters


async def test_a_call_that_is_cancelled_waits_no_more(server: Server, answers: WaitingAnswers) -> None:
    task = await waiting(answers, call(), lambda: False, 1000)
    task.cancel()
    await asyncio.wait([task])
    assert server.unsent.total == 0
    assert not answers.has_waiters


# Too much


async def test_the_largest_answer_that_waits_is_lost(server: Server, answers: WaitingAnswers) -> None:
    small, large, empty = call(), call(), call()
    tasks = [
        await waiting(answers, each, lambda: False, size)
        for each, size in ((small, 1000), (large, 2000), (empty, 0))
    ]
    assert answers.shed()
    await asyncio.wait_for(tasks[1], DEADLINE)
    assert large.failed is not None
    assert small.failed is empty.failed is None
    assert server.unsent.total == 1000
    for task in tasks:
        task.cancel()


async def test_who_would_free_nothing_loses_nothing(server: Server, answers: WaitingAnswers) -> None:
    """Neither one whose answer is empty, nor one who is making his."""
    empty, makes = call(), call()
    task = await waiting(answers, empty, lambda: False, 0)
    answers.grant(makes, 0, WIDE)
    assert not answers.shed()
    assert empty.failed is makes.failed is None
    assert not task.done()
    assert server.unsent.total == 256 * KIB
    task.cancel()


async def test_the_connection_with_most_loses_an_answer_when_there_is_too_much() -> None:
    server = Server(most=MOST_EACH)
    modest, greedy = server.connection(), server.connection()
    lost, kept = call(), call()
    modest_one = await waiting(modest.answers, kept, lambda: False, MOST_EACH // 4)
    greedy_one = await waiting(greedy.answers, lost, lambda: False, MOST_EACH // 2)
    modest.answers.grant(call(), 0, WIDE)
    assert lost.failed is None
    greedy.answers.count(MOST_EACH // 4)
    await asyncio.wait_for(greedy_one, DEADLINE)
    assert lost.failed is not None
    assert kept.failed is None
    assert not modest.cut_for
    assert not greedy.cut_for
    assert server.unsent.total == MOST_EACH // 2 + 256 * KIB
    modest_one.cancel()
