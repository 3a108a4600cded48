"""When a trigger's jobs are cancelled, and when never.

The triggers run in Airflow's own code. What stands in is the triggerer's parent process, which knows
the state of the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tests.conftest import ServerProcess
from triggering import (
    Supervisor,
    Triggerer,
    context,
    fire,
    next_try,
    restored,
    results,
    task_instance,
    trigger,
    until,
)

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from remsvc_provider.origin import Origin
from remsvc_provider.task_state import AIRFLOW_TELLS_KILLS
from remsvc_provider.triggers.remsvc import RemSvcTrigger

GONE = [None, "failed", "success", "skipped", "up_for_retry", "removed", "scheduled", "queued", "running"]
"""States in which nobody waits for the trigger any more: the first is of a task that was cleared."""


class Sleeper:
    """A command that runs until it is ended."""

    def __init__(self, directory: Path, name: str = "sleeper") -> None:
        self._path = directory / name
        self.cmd = f"echo $$ >> {self._path}; sleep 300"

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self._path.read_text().split()] if self._path.exists() else []

    @property
    def running(self) -> bool:
        return any(Path(f"/proc/{pid}").exists() for pid in self.pids)

    async def started(self) -> None:
        await until(lambda: self.pids, "the command to start")

    async def ended(self) -> None:
        await until(lambda: self.pids and not self.running, "the command to end")


@pytest.fixture
async def client(job_server: ServerProcess) -> AsyncIterator[AsyncClient]:
    """To look at the server's jobs. What a test leaves running is cancelled after it."""
    async with AsyncClient(ConnectionOptions(job_server.target)) as client:
        yield client
        async for job in client.list_jobs():
            if not job.ended:
                await client.cancel_job(job.id, kill=True)


async def deferred(supervisor: Supervisor, one: RemSvcTrigger, sleeper: Sleeper) -> Triggerer:
    """A triggerer that runs the trigger of a deferred task, whose command runs."""
    supervisor.set(one.task_instance, "deferred")
    triggerer = Triggerer(one)
    await sleeper.started()
    return triggerer


async def reason(client: AsyncClient) -> str:
    """Why the newest job was ended, or is about to be."""
    async for job in client.list_jobs():
        return job.reason
    return "there is no job"


@pytest.mark.parametrize("state", GONE)
async def test_a_killed_or_cleared_task_ends_its_command(supervisor, conn_id, client, tmp_path, state):
    sleeper = Sleeper(tmp_path)
    triggerer = await deferred(supervisor, trigger(conn_id, sleeper.cmd), sleeper)
    supervisor.set(triggerer.trigger.task_instance, state)
    await triggerer.lose_it()
    await sleeper.ended()
    assert "the Airflow task was killed" in await reason(client)


@pytest.mark.skipif(not AIRFLOW_TELLS_KILLS, reason="before Airflow 3.3 a kill looks like a triggerer's end")
async def test_a_kill_waits_for_an_answer_longer_than_a_triggerer_that_stops(
    supervisor, conn_id, client, tmp_path, monkeypatch
):
    """Airflow's first answer may take long."""
    monkeypatch.setattr("remsvc_provider.triggers.remsvc.ANSWER_TIMEOUT", 0.1)
    sleeper = Sleeper(tmp_path)
    triggerer = await deferred(supervisor, trigger(conn_id, sleeper.cmd), sleeper)
    supervisor.set(triggerer.trigger.task_instance, "failed")
    supervisor.delay = 1.0
    await triggerer.lose_it()
    await sleeper.ended()


async def test_so_does_deleting_its_run(supervisor, conn_id, client, tmp_path):
    sleeper = Sleeper(tmp_path)
    triggerer = await deferred(supervisor, trigger(conn_id, sleeper.cmd), sleeper)
    supervisor.states = {}
    await triggerer.lose_it()
    await sleeper.ended()


async def test_all_commands_that_run_side_by_side(supervisor, conn_id, client, tmp_path):
    sleepers = [Sleeper(tmp_path, str(n)) for n in range(3)]
    one = trigger(conn_id, *(sleeper.cmd for sleeper in sleepers), parallel=3)
    triggerer = await deferred(supervisor, one, sleepers[0])
    for sleeper in sleepers:
        await sleeper.started()
    supervisor.set(one.task_instance, "failed")
    await triggerer.lose_it()
    for sleeper in sleepers:
        await sleeper.ended()


async def test_a_mapped_task_is_told_from_its_siblings(supervisor, conn_id, client, tmp_path):
    sleeper = Sleeper(tmp_path)
    ti = task_instance(map_index=3)
    triggerer = await deferred(supervisor, trigger(conn_id, sleeper.cmd, ti=ti), sleeper)
    supervisor.states[ti.run_id] = {"remote_3": "failed", "remote_2": "deferred", "remote": "deferred"}
    await triggerer.lose_it()
    await sleeper.ended()
    assert (supervisor.asked[0].task_ids, supervisor.asked[0].map_index) == (["remote"], 3)


async def test_a_deferral_that_timed_out_ends_its_command(supervisor, conn_id, client, tmp_path):
    sleeper = Sleeper(tmp_path)
    one = trigger(conn_id, sleeper.cmd)
    one.timeout_after = datetime.now(timezone.utc) - timedelta(seconds=1)
    triggerer = await deferred(supervisor, one, sleeper)
    supervisor.set(one.task_instance, "scheduled")
    await triggerer.lose_it()
    await sleeper.ended()


async def test_a_job_whose_order_was_on_its_way(supervisor, scripted_jobs, connect):
    """Killed before the server's answer told the job's id."""
    one = trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")
    scripted_jobs.unanswered["CreateJob"] = 3
    supervisor.set(one.task_instance, "failed")
    triggerer = Triggerer(one)
    await until(lambda: scripted_jobs.jobs)
    await triggerer.lose_it()
    assert [order.id for order in scripted_jobs.asked("CancelJob")] == ["job1"]
    assert len(scripted_jobs.jobs) == 1


async def test_a_job_of_before_a_restart_that_was_not_found_yet(supervisor, scripted_jobs, connect):
    """Killed while the restarted trigger still waits for the server's first answer."""
    ti = task_instance()
    one = trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", "b", ti=ti)
    origin = Origin.of(ti, context(ti))
    for tid, state in ((1, jobs_pb2.SUCCEEDED), (2, jobs_pb2.RUNNING)):
        spec = jobs_pb2.JobSpec(shell_command="a", labels=origin.command_labels(tid))
        scripted_jobs.add(request_id=origin.command_id(tid), spec=spec, state=state)
    other = Origin.of(next_try(ti), context(ti))
    spec = jobs_pb2.JobSpec(shell_command="a", labels=other.command_labels(1))
    scripted_jobs.add(request_id=other.command_id(1), spec=spec)
    scripted_jobs.silent.add("GetJob")
    supervisor.set(ti, "failed")
    triggerer = Triggerer(one)
    await until(lambda: scripted_jobs.asked("GetJob"))
    await triggerer.lose_it()
    assert [order.id for order in scripted_jobs.asked("CancelJob")] == ["job2"]


async def test_a_command_that_waits_for_room_is_not_started_any_more(
    supervisor, serve, connect, tmp_path, capsys
):
    server = serve("[jobs]\nmax_running = 1\nmax_queued = 0\n")
    conn_id = connect(f"remsvc://{server.target}")
    go = tmp_path / "go"
    command = f"touch {tmp_path}/on; until [ -e {go} ]; do sleep 0.02; done"
    busy = asyncio.create_task(fire(trigger(conn_id, command)))
    await until((tmp_path / "on").exists)
    one = trigger(conn_id, f"touch {tmp_path}/late")
    supervisor.set(one.task_instance, "failed")
    triggerer = Triggerer(one)
    await until(lambda: "RESOURCE_EXHAUSTED" in capsys.readouterr().out)
    await triggerer.lose_it()
    go.touch()
    assert (await busy)["state"] == "SUCCESS"
    assert (await fire(trigger(conn_id, "true")))["state"] == "SUCCESS"
    assert not (tmp_path / "late").exists()


async def test_on_kill_may_leave_the_command(supervisor, conn_id, client, tmp_path):
    sleeper = Sleeper(tmp_path)
    triggerer = await deferred(supervisor, trigger(conn_id, sleeper.cmd, on_kill="leave"), sleeper)
    supervisor.set(triggerer.trigger.task_instance, "failed")
    await triggerer.lose_it()
    await stays(sleeper, client)


# ---- never


async def stays(sleeper: Sleeper, client: AsyncClient) -> None:
    """That nobody has ordered the command, whose job is the newest, to end.

    A trigger waits for the answers to its orders before it ends, and the server notes the reason of an order
    at once: what it says afterwards is what it will say.
    """
    assert await reason(client) == ""
    assert sleeper.running


async def test_a_triggerer_that_stops_leaves_it_alone(supervisor, conn_id, client, tmp_path):
    sleeper = Sleeper(tmp_path)
    triggerer = await deferred(supervisor, trigger(conn_id, sleeper.cmd), sleeper)
    await triggerer.stop()
    await triggerer.trigger.cleanup()  # it may be called twice
    await stays(sleeper, client)
    assert supervisor.asked == [] or not AIRFLOW_TELLS_KILLS


@pytest.mark.skipif(
    not AIRFLOW_TELLS_KILLS, reason="before Airflow 3.3 only the task's state tells of a kill"
)
@pytest.mark.parametrize("state", [None, "failed", "running", "queued"])
async def test_a_triggerer_that_stops_cancels_nothing_whatever_the_task_is_in(
    supervisor, conn_id, client, tmp_path, state
):
    """Airflow tells of a kill, so a triggerer's end is none: the next try has come meanwhile, perhaps."""
    sleeper = Sleeper(tmp_path)
    triggerer = await deferred(supervisor, trigger(conn_id, sleeper.cmd), sleeper)
    supervisor.set(triggerer.trigger.task_instance, state)
    await triggerer.stop()
    await triggerer.trigger.cleanup()
    await stays(sleeper, client)


async def test_a_triggerer_that_stops_and_is_not_answered_any_more(
    supervisor, conn_id, client, tmp_path, monkeypatch
):
    monkeypatch.setattr("remsvc_provider.triggers.remsvc.ANSWER_TIMEOUT", 0.2)
    supervisor.answers = False
    sleeper = Sleeper(tmp_path)
    one = trigger(conn_id, sleeper.cmd)
    one.timeout_after = datetime.now(timezone.utc) - timedelta(seconds=1)  # so that it asks on every Airflow
    triggerer = await deferred(supervisor, one, sleeper)
    await triggerer.stop()
    await stays(sleeper, client)


async def test_nor_where_the_task_state_cannot_be_learned(conn_id, client, tmp_path):
    sleeper = Sleeper(tmp_path)
    triggerer = Triggerer(trigger(conn_id, sleeper.cmd))
    await sleeper.started()
    await triggerer.lose_it()
    await stays(sleeper, client)


async def test_a_trigger_that_was_moved_to_another_triggerer(supervisor, conn_id, client, tmp_path):
    """A triggerer stalls, another one takes its triggers, and then the first one wakes up."""
    sleeper = Sleeper(tmp_path)
    stalled = await deferred(supervisor, trigger(conn_id, sleeper.cmd), sleeper)
    successor = Triggerer(restored(stalled.trigger))
    await stalled.lose_it()
    await stays(sleeper, client)
    assert not successor.task.done()
    assert len(sleeper.pids) == 1
    supervisor.set(stalled.trigger.task_instance, "failed")
    await successor.lose_it()
    await sleeper.ended()


async def test_a_stalled_triggerer_wakes_up_after_its_successor_is_done(
    supervisor, conn_id, client, tmp_path
):
    go = tmp_path / "go"
    command = f"echo ran >> {tmp_path}/trace; until [ -e {go} ]; do sleep 0.02; done; echo done"
    stalled = trigger(conn_id, command)
    supervisor.set(stalled.task_instance, "deferred")
    triggerer = Triggerer(stalled)
    await until((tmp_path / "trace").exists)
    go.touch()
    event = await fire(restored(stalled))
    supervisor.set(stalled.task_instance, "running")
    if not triggerer.task.done():
        await triggerer.lose_it()
    assert results(event)[0]["out"] == "done\n"
    assert (tmp_path / "trace").read_text() == "ran\n"
    assert await reason(client) == ""


async def test_a_trigger_whose_event_was_sent(supervisor, conn_id, scripted_jobs, client, tmp_path):
    """Airflow may cancel it as if by a user, in the moment between its event and its end."""
    one = trigger(conn_id, "echo done")
    supervisor.set(one.task_instance, "scheduled")
    events = one.run()
    event = await anext(events)
    assert event.payload["state"] == "SUCCESS"
    if AIRFLOW_TELLS_KILLS:
        await one.on_kill()
    await events.aclose()
    await one.cleanup()
    assert supervisor.asked == []
    assert await reason(client) == ""


async def test_a_new_try_that_a_clear_has_started(supervisor, conn_id, client, tmp_path):
    """It runs already when the old trigger hears about the clear. Its command goes on, the old one ends."""
    old, new = Sleeper(tmp_path, "old"), Sleeper(tmp_path, "new")
    ti = task_instance()
    first = await deferred(supervisor, trigger(conn_id, old.cmd, ti=ti), old)
    again = next_try(ti, cleared=True)
    second = await deferred(supervisor, trigger(conn_id, new.cmd, ti=again), new)
    await old.ended()
    assert len(new.pids) == 1
    if not first.task.done():  # it may have seen the end of its own command
        await first.lose_it()
    await stays(new, client)
    supervisor.set(again, "failed")
    await second.lose_it()
    await new.ended()


async def test_a_new_try_that_waits_to_be_deferred(supervisor, conn_id, client, tmp_path):
    old = Sleeper(tmp_path, "old")
    ti = task_instance()
    first = await deferred(supervisor, trigger(conn_id, old.cmd, ti=ti), old)
    supervisor.set(ti, "queued")
    await first.lose_it()
    await old.ended()


async def test_what_a_killed_triggerer_left_is_ended_by_the_next_try(supervisor, conn_id, client, tmp_path):
    """With no triggerer alive, nobody hears about a clear."""
    old, new = Sleeper(tmp_path, "old"), Sleeper(tmp_path, "new")
    ti = task_instance()
    first = await deferred(supervisor, trigger(conn_id, old.cmd, ti=ti), old)
    await first.stop()
    another = task_instance(run_id=ti.run_id, map_index=1)
    beside = await deferred(supervisor, trigger(conn_id, Sleeper(tmp_path, "beside").cmd, ti=another), old)
    await deferred(supervisor, trigger(conn_id, new.cmd, ti=next_try(ti, cleared=True)), new)
    await old.ended()
    assert new.running
    assert not beside.task.done()


async def test_what_on_kill_leaves_the_next_try_leaves_as_well(supervisor, conn_id, client, tmp_path):
    old, new = Sleeper(tmp_path, "old"), Sleeper(tmp_path, "new")
    ti = task_instance()
    first = await deferred(supervisor, trigger(conn_id, old.cmd, ti=ti, on_kill="leave"), old)
    await first.stop()
    again = next_try(ti, cleared=True)
    await deferred(supervisor, trigger(conn_id, new.cmd, ti=again, on_kill="leave"), new)
    assert old.running
