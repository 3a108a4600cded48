"""When a call may make another answer, by what its caller's window takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from remsvc.http2.engine import INITIAL_WINDOW_SIZE, WINDOW
from remsvc.server.http2.opening_windows import OpeningWindows
from remsvc.server.http2.unsent import Unsent
from remsvc.server.http2.waiting_answers import WaitingAnswers

KIB = 1024


class EngineInHand:
    """A connection of one stream.

    Attributes:
        waiting: bytes that wait to be sent on it.
        window: bytes that its window takes behind these.
        looks: how often one of them was asked for.
    """

    def __init__(self) -> None:
        self.waiting = self.window = self.looks = 0

    def queued(self, stream: int = 0) -> int:
        self.looks += 1
        return self.waiting

    def sendable(self, stream: int) -> int:
        self.looks += 1
        return self.window


class LoopInHand:
    """An event loop whose timer goes off when a test says so.

    Attributes:
        go_off: the timer; None where none runs.
    """

    def __init__(self) -> None:
        self.create_future = asyncio.get_running_loop().create_future
        self.go_off: Callable[[], None] | None = None

    def call_later(self, seconds: float, callback: Callable[[int], None], stream: int) -> LoopInHand:
        assert self.go_off is None

        def go_off() -> None:
            self.go_off = None
            callback(stream)

        self.go_off = go_off
        return self

    def cancel(self) -> None:
        self.go_off = None


class CallInHand:
    stream, widest = 1, 0

    def note_window(self, sendable: int) -> None:
        self.widest = max(self.widest, sendable)

    def note_narrow_window(self, sendable: int) -> None:
        self.widest = sendable


@pytest.fixture
async def engine() -> EngineInHand:
    return EngineInHand()


@pytest.fixture
async def loop() -> LoopInHand:
    return LoopInHand()


@pytest.fixture
async def windows(engine: EngineInHand, loop: Any) -> OpeningWindows:
    answers = WaitingAnswers(Unsent([], 4 * KIB * KIB, 24 * KIB * KIB), asyncio.get_running_loop())
    windows = OpeningWindows(loop, answers)
    windows.start(engine)  # type: ignore[arg-type]
    return windows


@pytest.fixture
def call() -> Any:
    return CallInHand()


async def waiting(windows: OpeningWindows, call: Any) -> asyncio.Task[None]:
    """A call that waits already."""
    task = asyncio.ensure_future(windows.wait(call))
    await asyncio.sleep(0)
    return task


async def goes_on(task: asyncio.Task[None]) -> bool:
    """Whether a call goes on with what has happened so far."""
    for _ in range(3):
        await asyncio.sleep(0)
    return task.done()


async def test_what_a_window_was_is_waited_for_once(
    windows: OpeningWindows, engine: EngineInHand, loop: LoopInHand, call: Any
) -> None:
    engine.window = 1024 * KIB
    assert windows.takes_enough(call)
    engine.window = 64 * KIB  # narrower, and for good
    assert not windows.takes_enough(call)
    task = await waiting(windows, call)
    assert not await goes_on(task)
    assert loop.go_off is not None
    loop.go_off()
    assert await goes_on(task)
    assert windows.takes_enough(call)
    engine.window = 20 * KIB
    assert not windows.takes_enough(call)  # less than half of what it takes now


async def test_of_a_wide_window_no_more_is_waited_for_than_an_answer_may_have(
    windows: OpeningWindows, engine: EngineInHand, call: Any
) -> None:
    engine.window = 2**31 - 1
    assert windows.takes_enough(call)
    engine.window = 256 * KIB
    assert windows.takes_enough(call)
    engine.window -= 1
    assert not windows.takes_enough(call)


async def test_who_has_written_much_goes_on_when_that_was_sent(
    windows: OpeningWindows, engine: EngineInHand, call: Any
) -> None:
    engine.waiting, engine.window = 100 * KIB, 1024 * KIB
    task = await waiting(windows, call)
    windows.note_sent()
    assert not await goes_on(task)
    engine.waiting = 0
    windows.note_sent()
    assert await goes_on(task)


async def test_a_shut_window_is_waited_for_until_it_changes(
    windows: OpeningWindows, engine: EngineInHand, loop: LoopInHand, call: Any
) -> None:
    assert not windows.takes_enough(call)  # not even where it was never open
    engine.window = 64 * KIB
    assert windows.takes_enough(call)
    engine.window = 0
    task = await waiting(windows, call)
    assert loop.go_off is None  # the time after which any byte will do has not begun
    engine.window = 32 * KIB
    windows.note(0)
    assert not await goes_on(task)
    windows.note(1)
    assert await goes_on(task)


async def test_few_bytes_are_enough_after_a_while(
    windows: OpeningWindows, engine: EngineInHand, loop: LoopInHand, call: Any
) -> None:
    engine.window = 64 * KIB
    assert windows.takes_enough(call)
    engine.window = 0
    task = await waiting(windows, call)
    engine.window = 1
    windows.note(1)
    engine.window = 0  # shut again, when the time has come
    assert loop.go_off is not None
    loop.go_off()
    assert not await goes_on(task)
    engine.window = 1
    windows.note(1)
    assert not await goes_on(task)
    assert loop.go_off is not None
    loop.go_off()
    assert await goes_on(task)


async def test_a_wait_that_is_given_up_leaves_nothing(
    windows: OpeningWindows, engine: EngineInHand, loop: LoopInHand, call: Any
) -> None:
    call.widest, engine.window = 64 * KIB, 1
    task = await waiting(windows, call)
    assert loop.go_off is not None
    engine.waiting = 100 * KIB
    windows.note(1)
    task.cancel()
    await asyncio.wait([task])
    assert loop.go_off is None
    engine.looks = 0
    windows.note(1)
    windows.note_sent()
    assert engine.looks == 0


@pytest.mark.parametrize(
    "settings",
    [{}, {INITIAL_WINDOW_SIZE + 1: 20_000}, {INITIAL_WINDOW_SIZE: WINDOW}, {INITIAL_WINDOW_SIZE: 0}],
)
async def test_settings_that_open_no_window_cost_nothing(
    windows: OpeningWindows, engine: EngineInHand, call: Any, settings: dict[int, int]
) -> None:
    task = await waiting(windows, call)
    engine.looks = 0
    windows.note_settings(settings)
    windows.note_sent()
    assert engine.looks == 0
    task.cancel()


async def test_settings_that_open_all_windows_let_calls_go_on(
    windows: OpeningWindows, engine: EngineInHand, call: Any
) -> None:
    task = await waiting(windows, call)
    windows.note_settings({INITIAL_WINDOW_SIZE: 0})
    windows.note_settings({INITIAL_WINDOW_SIZE: WINDOW})
    engine.window = WINDOW
    windows.note_sent()
    assert await goes_on(task)
