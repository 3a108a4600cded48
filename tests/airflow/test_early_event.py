"""An event that would come before the scheduler knows that the worker has ended."""

from __future__ import annotations

import asyncio
import time

import pytest
from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder
from airflow.sdk.execution_time import task_runner
from triggering import DEADLINE, Supervisor, Triggerer, fire, task_instance, trigger, until

pytestmark = pytest.mark.usefixtures("in_triggerer")


class TriggerersSupervisor(Supervisor):
    """Passes for what a triggerer's process asks its parent by."""

    __class__ = TriggerCommsDecoder


@pytest.fixture
def in_triggerer(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """As in a triggerer's process."""
    comms = TriggerersSupervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    return comms


async def test_a_task_is_resumed_no_sooner_than_resume_after(conn_id, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", "3")
    deferred_at = time.time()
    event = await fire(trigger(conn_id, "true", deferred_at=deferred_at))
    assert event["state"] == "SUCCESS"
    assert time.time() - deferred_at >= 3


async def test_neither_is_a_task_that_failed(conn_id, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", "3")
    deferred_at = time.time()
    assert (await fire(trigger(conn_id, "false", deferred_at=deferred_at)))["state"] == "FAILED"
    assert time.time() - deferred_at >= 3


@pytest.mark.parametrize("deferred", ["long ago", "not by a worker"])
async def test_what_was_not_deferred_just_now_does_not_wait(
    deferred: str, conn_id, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", str(100 * DEADLINE))
    options = {"deferred_at": time.time() - 100 * DEADLINE - 1} if deferred == "long ago" else {}
    await asyncio.wait_for(fire(trigger(conn_id, "true", **options)), DEADLINE)


async def test_dag_test_does_not_wait(conn_id, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", str(100 * DEADLINE))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", object())
    await asyncio.wait_for(fire(trigger(conn_id, "true", deferred_at=time.time())), DEADLINE)


async def test_a_clock_that_is_ahead_does_not_keep_it_longer(conn_id, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", "1")
    tomorrow = time.time() + 86400
    await asyncio.wait_for(fire(trigger(conn_id, "true", deferred_at=tomorrow)), DEADLINE)


async def test_a_setting_that_cannot_be_used_is_no_failure(conn_id, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", "soon")
    event = await fire(trigger(conn_id, "true", deferred_at=time.time() - 60))
    assert event["state"] == "SUCCESS"


@pytest.mark.parametrize("way", ["stop", "lose_it"])
async def test_an_event_that_is_kept_back_holds_up_nobody_who_ends_the_trigger(
    way: str, conn_id, tmp_path, in_triggerer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", str(100 * DEADLINE))
    ti = task_instance()
    in_triggerer.set(ti, "deferred" if way == "stop" else "failed")
    triggerer = Triggerer(trigger(conn_id, f"touch {tmp_path}/ran", ti=ti, deferred_at=time.time()))
    await until((tmp_path / "ran").exists, "the command")
    await asyncio.sleep(1)  # until its end is known, and only the event is waited for
    await getattr(triggerer, way)()
    assert triggerer.events == []
