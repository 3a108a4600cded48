"""Rendering in threads, some of which never end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from triggering import DEADLINE, until

from remsvc_provider.render_threads import AT_ONCE, MOST_LEFT, in_thread


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
    assert {str(error) for error in found} == {f"{MOST_LEFT} other renderings do not end"}
    assert called == []


async def test_they_are_started_again_when_those_have_ended(released):
    await asyncio.gather(*(hang(released) for _ in range(MOST_LEFT)))
    released.set()
    threads = [thread for thread in threading.enumerate() if thread.name == "remsvc-render"]
    await until(lambda: not any(thread.is_alive() for thread in threads))
    await asyncio.sleep(0)  # what they have told the loop
    assert await in_thread(lambda: "rendered", DEADLINE) == "rendered"


async def test_what_nobody_waits_for_any_more_counts_as_well(released):
    tasks = [
        asyncio.create_task(in_thread(lambda: released.wait(DEADLINE), DEADLINE)) for _ in range(MOST_LEFT)
    ]
    await until(lambda: sum(thread.name == "remsvc-render" for thread in threading.enumerate()) >= MOST_LEFT)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    with pytest.raises(TimeoutError, match="other renderings do not end"):
        await in_thread(lambda: "rendered", DEADLINE)


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
    others = [asyncio.create_task(in_thread(lambda: released.wait(DEADLINE), DEADLINE)) for _ in range(20)]
    await until(lambda: sum(thread.name == "remsvc-render" for thread in threading.enumerate()) >= AT_ONCE)
    assert await in_thread(lambda: "rendered", DEADLINE, urgent=True) == "rendered"
    assert not any(task.done() for task in others)
    released.set()
    assert all(await asyncio.gather(*others))


async def test_what_is_urgent_waits_no_longer_for_its_turn_than_for_its_end(released):
    others = [
        asyncio.create_task(in_thread(lambda: released.wait(DEADLINE), DEADLINE, urgent=True))
        for _ in range(AT_ONCE)
    ]
    await until(lambda: sum(thread.name == "remsvc-render" for thread in threading.enumerate()) >= AT_ONCE)
    with pytest.raises(TimeoutError, match=r"its turn to be rendered has not come within 0\.1 s"):
        await in_thread(lambda: "rendered", 0.1, urgent=True)
    assert await in_thread(lambda: "rendered", DEADLINE) == "rendered"  # those have not lost a place
    released.set()
    await asyncio.gather(*others)
