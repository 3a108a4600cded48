"""Limits of time for what is awaited: what asyncio.timeout does, on every Python."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from remsvc.time_limit import TimeLimit


async def test_the_result_comes_in_time() -> None:
    with TimeLimit(30):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
async def test_what_takes_too_long_is_cancelled_and_the_task_goes_on(seconds: float) -> None:
    waited_for = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError), TimeLimit(seconds):
        await waited_for
    assert waited_for.cancelled()
    await asyncio.sleep(0)  # nothing of the cancellation is left


async def test_without_a_limit_nothing_is_limited() -> None:
    with TimeLimit(None):
        await asyncio.sleep(0)


async def test_an_error_of_the_block_is_passed_on() -> None:
    with pytest.raises(KeyError), TimeLimit(30):
        raise KeyError


async def test_a_cancellation_from_outside_is_passed_on() -> None:
    async def wait() -> None:
        with TimeLimit(30):
            await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_cancellation_together_with_the_result_is_heard() -> None:
    """What asyncio.wait_for swallows before Python 3.12."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    async def wait() -> None:
        with TimeLimit(30):
            await future

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    future.set_result(None)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("first", ["time", "somebody"])
@pytest.mark.parametrize("deep", [False, True])
async def test_a_cancellation_together_with_the_end_of_the_time_is_heard(first: str, deep: bool) -> None:
    """Both come in one step of the event loop, in either order, and also through a task that is awaited."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    async def wait() -> None:
        with TimeLimit(0.05):
            await (asyncio.ensure_future(asyncio.wait([future])) if deep else future)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    # In the order of their times, and in one step where both are due.
    loop.call_later(0.04 if first == "somebody" else 0.06, task.cancel)
    await asyncio.sleep(0)
    _block_loop_for(0.15)
    await asyncio.wait([task])
    assert task.cancelled()


async def test_who_was_cancelled_before_and_went_on_still_has_a_limit() -> None:
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        try:
            with TimeLimit(0.01):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "limited"
        return "unlimited"

    task = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "limited"


@pytest.mark.parametrize(
    ("inner", "outer", "raised_by"),
    [(0.01, 30, "inner"), (30, 0.01, "outer"), (0.04, 0.05, "outer"), (0.05, 0.04, "outer")],
)
async def test_nested_limits_end_their_own_block(inner: float, outer: float, raised_by: str) -> None:
    """Two that end together end the outer block."""
    loop = asyncio.get_running_loop()
    heard = ""
    try:
        with TimeLimit(outer):
            try:
                with TimeLimit(inner):
                    loop.call_soon(_block_loop_for, 0.15)
                    await loop.create_future()
            except TimeoutError:
                heard = "inner"
    except TimeoutError:
        heard = "outer"
    assert heard == raised_by
    await asyncio.sleep(0)  # nothing of either cancellation is left


def _block_loop_for(seconds: float) -> None:
    """Let all that is due within this time become due in one step of the event loop."""
    time.sleep(seconds)


async def test_a_limit_can_be_lifted_and_counted_anew() -> None:
    limit = TimeLimit(0.01)
    assert limit.left is None

    async def wait() -> None:
        with limit:
            limit.restart(None)
            assert limit.left is None
            await asyncio.sleep(0.05)
            limit.restart(30)
            assert limit.left is not None
            assert limit.left > 10
            asyncio.get_running_loop().call_soon(limit.restart, 0)  # from outside of the block
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        await wait()


async def test_one_that_had_no_limit_gets_one() -> None:
    limit = TimeLimit(None)
    asyncio.get_running_loop().call_soon(limit.restart, 0)
    with pytest.raises(TimeoutError), limit:
        await asyncio.get_running_loop().create_future()


async def test_outside_of_its_block_it_cannot_be_restarted() -> None:
    limit = TimeLimit(30)
    with limit:
        pass
    limit.restart(0)
    await asyncio.sleep(0.05)  # nobody is cancelled
