"""An event that would come before the scheduler knows that the worker has ended."""

from __future__ import annotations

import asyncio
import time

import pytest
from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder
from airflow.sdk.execution_time import task_runner
from triggering import DEADLINE, Supervisor, Triggerer, fire, task_instance, trigger, until

from remsvc_provider.settings import Setting
from remsvc_provider.triggers import remsvc as triggers

FOR_LONG = 100 * DEADLINE

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


@pytest.fixture
def for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are kept back for longer than any test waits."""
    monkeypatch.setattr(triggers, "RESUME_AFTER", Setting("resume_after", FOR_LONG, ""))


@pytest.mark.parametrize("resume_after", ["1", "1000"])
async def test_a_task_is_resumed_no_sooner_than_resume_after(
    resume_after: str, conn_id, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """However it ended. What the setting cannot be is taken for 5."""
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", resume_after)
    deferred_at = time.time()
    commands = ("true", "false")
    events = await asyncio.gather(
        *(fire(trigger(conn_id, command, deferred_at=deferred_at)) for command in commands)
    )
    assert [event["state"] for event in events] == ["SUCCESS", "FAILED"]
    taken = time.time() - deferred_at
    if resume_after == "1":
        assert taken >= 1
        assert caplog.text == ""
    else:
        assert taken >= 5
        assert "[remsvc] resume_after is '1000'; expected a number from 0 to 30; 5.0 is used" in caplog.text


@pytest.mark.parametrize("deferred", ["long ago", "not by a worker"])
async def test_what_was_not_deferred_just_now_does_not_wait(deferred: str, conn_id, for_long):
    options = {"deferred_at": time.time() - FOR_LONG - 1} if deferred == "long ago" else {}
    await asyncio.wait_for(fire(trigger(conn_id, "true", **options)), DEADLINE)


async def test_dag_test_does_not_wait(conn_id, for_long, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", object())
    await asyncio.wait_for(fire(trigger(conn_id, "true", deferred_at=time.time())), DEADLINE)


async def test_a_clock_that_is_ahead_does_not_keep_it_longer(conn_id, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__REMSVC__RESUME_AFTER", "1")
    tomorrow = time.time() + 86400
    await asyncio.wait_for(fire(trigger(conn_id, "true", deferred_at=tomorrow)), DEADLINE)


@pytest.mark.parametrize("way", ["stop", "lose_it"])
async def test_an_event_that_is_kept_back_holds_up_nobody_who_ends_the_trigger(
    way: str, conn_id, in_triggerer, for_long, capsys: pytest.CaptureFixture[str]
):
    ti = task_instance()
    in_triggerer.set(ti, "deferred" if way == "stop" else "failed")
    triggerer = Triggerer(trigger(conn_id, "true", ti=ti, deferred_at=time.time()))
    told: list[str] = []

    def ended() -> bool:
        told.append(capsys.readouterr().out)
        return "Command 1 ended with rc 0" in "".join(told)

    await until(ended, "the command's end")
    await getattr(triggerer, way)()
    assert triggerer.events == []
