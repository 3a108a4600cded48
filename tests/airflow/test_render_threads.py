"""Rendering in threads, some of which never end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from triggering import DEADLINE, until

from remsvc_provider.templates.threads import AT_ONCE, MOST_LEFT, in_thread


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What the works wait for that do not end."""
    event = threading.Event()
    yield event
    event.set()


async def hang(released: threading.Event) -> None:
    with pytest.raises(TimeoutError, match=r"rendering took longer than 0\.1 s"):
        await in_thread(lambda: released.wait(DEADLINE), 0.1)


async def test_those_that_never_end_take_no_place_from_others(released):
    for _ in range(MOST_LEFT - 1):
        await hang(released)
    meeting = threading.Barrier(AT_ONCE)  # all places are there: so many can be in it together
    await asyncio.gather(*(in_thread(lambda: meeting.wait(DEADLINE), DEADLINE) for _ in range(AT_ONCE)))


async def test_nobody_waits_where_none_ends(released):
    await asyncio.gather(*(hang(released) for _ in range(MOST_LEFT)))
    called = []
    waiting = (in_thread(lambda: called.append(1), 10 * DEADLINE) for _ in range(20))
    found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), DEADLINE)
    assert {str(error) for error in found} == {
        f"the templates of {MOST_LEFT} other tasks are still being rendered, and too late"
    }
    assert called == []


async def test_they_are_started_again_when_those_have_ended(released):
    await asyncio.gather(*(hang(released) for _ in range(MOST_LEFT)))
    released.set()
    threads = [thread for thread in threading.enumerate() if thread.name == "remsvc-render"]
    await until(lambda: not any(thread.is_alive() for thread in threads))
    await asyncio.sleep(0)  # what they have told the loop
    assert await in_thread(lambda: "rendered", DEADLINE) == "rendered"


async def render_again_and_again() -> None:
    while True:
        await in_thread(lambda: "rendered", DEADLINE)


async def occupied(
    released: threading.Event, timeout: float, urgent: bool = False
) -> list[asyncio.Task[bool]]:
    """Renderings that have all places, and do not end."""
    begun = threading.Semaphore(0)

    def wait() -> bool:
        begun.release()
        return released.wait(DEADLINE)

    tasks = [asyncio.create_task(in_thread(wait, timeout, urgent=urgent)) for _ in range(AT_ONCE)]
    for _ in tasks:
        await until(lambda: begun.acquire(blocking=False))
    return tasks


async def test_what_nobody_waits_for_any_more_keeps_its_place_until_its_time_is_up(released):
    tasks = await occupied(released, 1.0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    with pytest.raises(TimeoutError, match=f"templates of {MOST_LEFT} other tasks"):
        await asyncio.wait_for(render_again_and_again(), DEADLINE)
    assert await in_thread(lambda: "rendered", DEADLINE, urgent=True) == "rendered"


async def test_others_have_their_turns_when_those_have_ended_that_nobody_waits_for(released):
    tasks = await occupied(released, DEADLINE)
    others = [asyncio.create_task(in_thread(lambda: "rendered", DEADLINE)) for _ in range(20)]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert await in_thread(lambda: "rendered", DEADLINE, urgent=True) == "rendered"
    assert not any(task.done() for task in others)
    released.set()
    assert await asyncio.gather(*others) == ["rendered"] * 20


async def test_an_error_is_the_callers():
    def fail() -> None:
        raise LookupError("not there")

    with pytest.raises(LookupError, match="not there"):
        await in_thread(fail, DEADLINE)


async def test_a_timeout_of_its_own_is_the_callers_too():
    """What a template asks Airflow for may give up by itself."""

    def give_up() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError) as raised:
        await in_thread(give_up, DEADLINE)
    assert str(raised.value) == ""


async def test_what_is_urgent_waits_for_no_turn_of_others(released):
    tasks = await occupied(released, DEADLINE)
    others = [asyncio.create_task(in_thread(lambda: "rendered", DEADLINE)) for _ in range(20)]
    assert await in_thread(lambda: "rendered", DEADLINE, urgent=True) == "rendered"
    assert not any(task.done() for task in others)
    released.set()
    await asyncio.gather(*tasks, *others)


async def test_what_is_urgent_waits_no_longer_for_its_turn_than_for_its_end(released):
    tasks = await occupied(released, DEADLINE, urgent=True)
    with pytest.raises(TimeoutError, match=r"turn to be rendered has not come within 0\.1 s"):
        await in_thread(lambda: "rendered", 0.1, urgent=True)
    assert await in_thread(lambda: "rendered", DEADLINE) == "rendered"  # those have taken no place of others
    released.set()
    await asyncio.gather(*tasks)
