"""Airflow is asked for a connection once by all who start at the same time, and nobody gets an old answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import BaseHook
from triggering import fire, trigger, until

from remsvc_provider.connection import lookup
from remsvc_provider.hooks.remsvc import RemSvcHook
from remsvc_provider.version_compat import AirflowException


class Airflow:
    """What the triggerer's parent process is to triggers: it answers when it gets round to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.problem: Exception | None = None
        self.free = asyncio.Event()
        self.free.set()
        answer = BaseHook.aget_connection

        async def aget_connection(conn_id: str) -> Any:
            self.asked += 1
            problem = self.problem
            await asyncio.sleep(0)
            await self.free.wait()
            if problem is not None:
                raise problem
            return await answer(conn_id)

        monkeypatch.setattr(BaseHook, "aget_connection", aget_connection)


@pytest.fixture
async def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    return Airflow(monkeypatch)


async def host(conn_id: str) -> str | None:
    """What a new hook is told."""
    return (await RemSvcHook(conn_id).get_async_conn()).host


async def test_who_starts_at_once_asks_once(airflow: Airflow, connect: Callable[[str], str]) -> None:
    conn_id = connect("remsvc://host")
    assert await asyncio.gather(*(host(conn_id) for _ in range(20))) == ["host"] * 20
    assert airflow.asked == 1


async def test_a_trigger_that_starts_after_a_change_is_told_of_it(
    airflow: Airflow, conn_id: str, connect: Callable[[str], str]
) -> None:
    """Whatever those were told that started just before."""
    assert (await fire(trigger(conn_id, "true")))["state"] == "SUCCESS"
    connect("remsvc://other?use_ssl=perhaps")
    event = await fire(trigger(conn_id, "true"))
    assert (event["state"], "perhaps" in str(event)) == ("FAILED", True)


async def test_tasks_that_were_deferred_before_it_was_asked_for_share_an_answer(
    airflow: Airflow, conn_id: str, connect: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "KEPT_SECONDS", 600.0)
    deferred = {"deferred_at": time.time()}
    for _ in range(2):
        assert (await fire(trigger(conn_id, "true", **deferred)))["state"] == "SUCCESS"
    assert airflow.asked == 1

    connect("remsvc://other?use_ssl=perhaps")
    event = await fire(trigger(conn_id, "true", deferred_at=time.time()))
    assert (event["state"], "perhaps" in str(event)) == ("FAILED", True)


async def test_an_answer_is_kept_for_a_moment_only(
    airflow: Airflow, connect: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of who deferred the task may be wrong."""
    monkeypatch.setattr(lookup, "KEPT_SECONDS", 0.0)
    for name in ("old", "new"):
        hook = RemSvcHook(connect(f"remsvc://{name}"))
        assert (await hook.get_async_conn(since=0.0)).host == name
        await asyncio.sleep(0.01)  # the loop's timers have their turn


async def test_who_asks_while_others_wait_shares_the_next_answer(
    airflow: Airflow, connect: Callable[[str], str]
) -> None:
    """The one on its way may be older than what they ask for."""
    airflow.free.clear()
    first = asyncio.create_task(host(connect("remsvc://old")))
    await until(lambda: airflow.asked == 1)
    others = [asyncio.create_task(host("remsvc_test")) for _ in range(10)]
    await asyncio.sleep(0)
    airflow.free.set()
    await first
    connect("remsvc://new")
    assert await asyncio.gather(*others) == ["new"] * 10
    assert airflow.asked == 2


async def test_a_failure_is_for_those_who_waited(airflow: Airflow, connect: Callable[[str], str]) -> None:
    conn_id = connect("remsvc://host")
    airflow.problem = AirflowException("no answer")
    airflow.free.clear()
    first = asyncio.create_task(host(conn_id))
    await until(lambda: airflow.asked == 1)
    waiting = [asyncio.create_task(host(conn_id)) for _ in range(10)]
    await asyncio.sleep(0)
    airflow.free.set()
    found = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [str(one) for one in found] == ["no answer"] * 11
    airflow.problem = None
    assert await host(conn_id) == "host"


async def test_who_is_cancelled_while_asking_holds_up_nobody(
    airflow: Airflow, connect: Callable[[str], str]
) -> None:
    airflow.free.clear()
    first = asyncio.create_task(host(connect("remsvc://host")))
    await until(lambda: airflow.asked == 1)
    second = asyncio.create_task(host("remsvc_test"))
    await asyncio.sleep(0)
    first.cancel()
    airflow.free.set()
    assert await second == "host"


async def test_what_one_hook_changes_no_other_has(airflow: Airflow, connect: Callable[[str], str]) -> None:
    connection = await RemSvcHook(connect("remsvc://host")).get_async_conn()
    connection.host = "changed"
    assert await host("remsvc_test") == "host"
