"""Tasks that start in the triggerer do what they do when a worker starts them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from scheduling import created, needs_start, started, stored_trigger
from tests.conftest import ServerProcess
from triggering import (
    DEADLINE,
    Supervisor,
    Triggerer,
    context,
    deferral,
    fire,
    restored,
    results,
    task_instance,
    until,
)

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc_provider.operators.remsvc import RemSvcOperator
from remsvc_provider.templates.threads import AT_ONCE
from remsvc_provider.triggers.start import RemSvcStartTrigger
from remsvc_provider.version_compat import AirflowException

pytestmark = needs_start

SECRET = "a-secret-that-nobody-may-see"


def in_dag(native: bool = False, **parameters: Any) -> DAG:
    """A DAG with one task."""
    with DAG("dag", schedule=None, render_template_as_native_obj=native) as dag:
        RemSvcOperator(
            task_id="run", **{"commands": [{"cmd": "true"}], "grpc_conn_id": "remsvc_test", **parameters}
        )
    return dag


def try_of(trigger: Any) -> dict[str, Any]:
    """What names the try of a task."""
    names = ("id", "dag_id", "run_id", "task_id", "map_index", "try_number")
    return {name: getattr(trigger.task_instance, name) for name in names}


def on_a_worker(dag: DAG, of: Any) -> Any:
    """What a worker would defer to, in the place of a trigger that starts the same task."""
    task = dag.get_task("run")
    values = {**of.task_instance.get_template_context(), "task": task}
    task.render_template_fields(values, jinja_env=dag.get_template_env())
    ti = SimpleNamespace(**try_of(of), task=task, max_tries=task.retries)
    return deferral(task.execute, {**values, "ti": ti}).trigger


@pytest.mark.parametrize("native", [False, True])
async def test_everything_is_as_a_worker_makes_it(native, conn_id):
    dag = in_dag(
        native,
        commands=[
            {"cmd": "echo {{ ds }} {{ ts }} {{ logical_date }} {{ run_id }}\n", "src": "{{ ti.task_id }}"},
            {
                "argv": ["echo", "{{ dag_run.conf['number'] }}", "{{ '3.10' }}"],
                "env": {"A": "{{ ds_nodash }}"},
            },
            {"cmd": "cat", "input": "{{ ti.try_number }}\r\n{% if ds %}{{ ds }}\r\n{% endif %}"},
            {"cmd": "pwd; echo $B $C", "cwd": "/{{ 'tmp' }}"},
        ],
        env={"B": "{{ dag_run.conf['deep']['text'] | upper }}", "C": 7},
        cwd="/{{ 'usr' }}",
        metadata=[("x-run", "{{ dag.dag_id }}")],
        stream_timeout=50,
        max_output_bytes=1000,
        skip_on_exit_code=(9,),
        retries=2,
    )
    trigger = started(dag, conf={"number": 310, "deep": {"text": "x"}})
    by_worker = on_a_worker(dag, trigger)
    event = await fire(trigger)
    assert event["state"] == "SUCCESS", event
    assert trigger.plan.commands == by_worker.plan.commands
    assert trigger.plan.metadata == by_worker.plan.metadata
    assert trigger.plan.stream_timeout == by_worker.plan.stream_timeout
    assert trigger.grpc_conn_id == by_worker.grpc_conn_id
    _, arguments = by_worker.serialize()
    assert arguments["origin"]["labels"]["airflow_run_started"] == "2030-01-02T03:04:05.678901+00:00"
    # The jobs of one are the other's: it finds them, and runs nothing again.
    again = restored(by_worker, SimpleNamespace(**try_of(trigger)))
    assert await fire(again) == {k: v for k, v in event.items() if k != "try_number"}


async def test_what_is_static_starts_as_well(conn_id):
    (result,) = results(await fire(started(in_dag(commands=[{"cmd": "echo as it is"}]))))
    assert result["out"] == "as it is\n"


async def test_a_trigger_that_another_triggerer_takes_over_starts_nothing_twice(conn_id, tmp_path):
    dag = in_dag(commands=[{"cmd": f"echo {{{{ ds }}}} | tee -a {tmp_path}/runs"}])
    first = started(dag)
    second = started(dag, **try_of(first))
    assert await fire(first) == await fire(second)
    assert (tmp_path / "runs").read_text() == "2030-01-01\n"


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"commands": [{"cmd": "true"}, {"cmd": "x", "cmdtyp": 2}]}, r"commands\[1\]: cmdtyp must be 0"),
        ({"commands": []}, "commands"),
        ({"commands": "{{ dag_run.conf['missing'] }}"}, "missing"),
        ({"stream_timeout": -1}, "stream_timeout is -1"),
        ({"metadata": [("x", 1)]}, r"metadata\[0\] must be a pair of strings"),
        ({"on_kill": "ask"}, "on_kill is 'ask'"),
    ],
)
async def test_what_cannot_be_used_is_said_by_a_worker(parameters, sentence, conn_id):
    dag = in_dag(**parameters)
    trigger = started(dag, conf={})
    event = await fire(trigger)
    assert (event["state"], event["results"]) == ("NOT_STARTED", {})
    with pytest.raises(Exception, match=sentence) as of_worker:
        on_a_worker(dag, trigger)
    task = in_dag(**parameters).get_task("run")
    ti = task_instance(task=task)
    if of_worker.type is not AirflowException:
        return  # while it renders, before it looks at the event
    with pytest.raises(AirflowException) as of_task:
        task.execute_complete(context(ti), event)
    assert str(of_task.value) == str(of_worker.value)


async def test_a_task_that_was_handed_over_runs(conn_id):
    task = RemSvcOperator(task_id="run", commands=[{"cmd": "echo here"}], grpc_conn_id="remsvc_test")
    ti = task_instance(task=task)
    event = {"state": "NOT_STARTED", "results": {}, "error_msg": "why", "try_number": 1}
    trigger = restored(deferral(task.execute_complete, context(ti), event).trigger, ti)
    assert results(await fire(trigger))[0]["out"] == "here\n"


async def test_tries_after_the_first_are_a_workers(conn_id):
    """A triggerer is not told which of them follow a clear."""
    event = await fire(started(in_dag(retries=3), try_number=2))
    assert (event["state"], event["try_number"]) == ("NOT_STARTED", 2)


async def test_an_event_of_another_try_is_none_of_this_one(conn_id):
    task = in_dag().get_task("run")
    ti = task_instance(try_number=2, max_tries=1)
    event = {"state": "SUCCESS", "results": {}, "error_msg": None, "try_number": 1}
    assert deferral(task.execute_complete, context(ti), event)


async def test_a_dag_that_no_longer_starts_it_here_has_a_worker_start_it(conn_id):
    """Airflow gives a trigger no context then."""
    trigger = started(in_dag())
    trigger.render_template_fields(context=None)
    assert (await fire(trigger))["state"] == "NOT_STARTED"


async def test_a_task_that_a_worker_deferred_is_not_rendered_again(conn_id):
    """Airflow tells its trigger to, as the task might have been started by one."""
    dag = in_dag(commands=[{"cmd": "echo '{{ dag_run.conf['text'] }}'"}])
    of = started(dag, conf={"text": "{{ ds }}"})
    trigger = on_a_worker(dag, of)
    again = type(trigger)(**trigger.serialize()[1])
    again.task_instance = of.task_instance
    again.render_template_fields(context=of.task_instance.get_template_context())
    assert results(await fire(again))[0]["out"] == "{{ ds }}\n"


@pytest.mark.parametrize("stored", ["", "{}", "[]", "null", '{"fields": {}, "longest_deferral": "x"}'])
async def test_what_another_version_has_stored_is_a_workers(stored):
    """An error while a trigger is created would end the triggerer, and each that takes the trigger over."""
    (payload,) = await created("remsvc_provider.triggers.start.RemSvcStartTrigger", {"parameters": stored})
    assert payload["state"] == "NOT_STARTED"


@pytest.mark.parametrize(
    "wrong", [{"metadata": [["x"]]}, {"metadata": 1}, {"secrets": [1]}, {"secrets": 1}, {"new": 1}], ids=str
)
async def test_a_trigger_that_cannot_be_created_ends_no_triggerer(wrong):
    stored = {"commands": [{"cmd": "true"}], **wrong}
    assert await created("remsvc_provider.triggers.remsvc.RemSvcTrigger", stored) == []


class Slow:
    """A value of which templates can take something, once it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def __getitem__(self, name: str) -> str:
        assert self.released.wait(30)
        return "late"


@pytest.fixture
def slow() -> Iterator[Slow]:
    value = Slow()
    yield value
    value.released.set()


def asking(slow: Slow, **more: Any) -> RemSvcStartTrigger:
    """A trigger whose templates ask for the slow value."""
    asks = "{{ params['x'] }}"
    trigger = started(in_dag(commands=[{"cmd": f"echo {asks}"}], metadata=[("x-asked", asks)]), **more)
    trigger.render_template_fields({**trigger.task_instance.get_template_context(), "params": slow})
    return trigger


def rendering() -> int:
    """How many threads render."""
    return sum(thread.name == "remsvc-render" for thread in threading.enumerate())


async def test_rendering_holds_up_nobody_else(slow, conn_id):
    waiting = [asyncio.create_task(fire(asking(slow))) for _ in range(2)]
    await until(lambda: rendering() == 2, "both to render")
    assert results(await fire(started(in_dag(commands=[{"cmd": "echo meanwhile {{ ds }}"}]))))
    assert not any(task.done() for task in waiting)
    slow.released.set()  # by the loop: it would never come to this if it rendered
    for event in await asyncio.gather(*waiting):
        assert results(event)[0]["out"] == "late\n"


async def test_rendering_that_never_ends_is_left_to_a_worker(slow, conn_id, monkeypatch):
    monkeypatch.setattr("remsvc_provider.triggers.start.RENDER_TIMEOUT", 0.2)
    events = await asyncio.gather(*(fire(asking(slow)) for _ in range(6)))
    assert [event["state"] for event in events] == ["NOT_STARTED"] * 6
    slow.released.set()
    await until(lambda: not rendering())
    monkeypatch.setattr("remsvc_provider.triggers.start.RENDER_TIMEOUT", 30.0)
    assert (await fire(started(in_dag())))["state"] == "SUCCESS"


async def test_a_kill_does_not_wait_for_rendering_that_never_ends(slow, conn_id, supervisor, monkeypatch):
    """Airflow gives it 30 seconds."""
    monkeypatch.setattr("remsvc_provider.triggers.start.RENDER_TIMEOUT", 100 * DEADLINE)
    monkeypatch.setattr("remsvc_provider.triggers.start.KILL_RENDER_TIMEOUT", 0.2)
    trigger = asking(slow)
    supervisor.set(trigger.task_instance, "failed")
    await asyncio.wait_for(trigger.on_kill(), DEADLINE)


async def test_a_kill_does_not_wait_for_the_turns_of_those_that_start(slow, conn_id, client, supervisor):
    """What an earlier triggerer has started runs on otherwise."""
    dag = in_dag(commands=[{"cmd": "sleep {{ 300 }}"}])
    trigger = started(dag)
    earlier = Triggerer(trigger)
    await until_running(client, bool)
    await earlier.stop()
    starting = [asyncio.create_task(fire(asking(slow))) for _ in range(10)]
    await until(lambda: rendering() >= AT_ONCE)
    again = started(dag, **try_of(trigger))
    supervisor.set(again.task_instance, "failed")
    await asyncio.wait_for(again.on_kill(), DEADLINE)
    await until_running(client, lambda jobs: not jobs)
    assert not any(task.done() for task in starting)
    slow.released.set()
    await asyncio.gather(*starting)


async def test_tasks_that_are_killed_while_they_are_rendered_leave_nothing_running(
    conn_id, client, supervisor, slow
):
    """A triggerer takes several over, whose jobs run."""
    count = 2 * AT_ONCE
    firsts = [started(in_dag(commands=[{"cmd": "sleep {{ 300 }}"}])) for _ in range(count)]
    earlier = [Triggerer(each) for each in firsts]
    await until_running(client, lambda jobs: len(jobs) == count)
    for each in earlier:
        await each.stop()
    again = [asking(slow, **try_of(each)) for each in firsts]
    for trigger in again:
        supervisor.set(trigger.task_instance, "failed")
    later = [Triggerer(each) for each in again]
    await until(lambda: rendering() >= AT_ONCE)
    kills = [asyncio.create_task(each.lose_it()) for each in later]
    await until(lambda: rendering() >= 2 * AT_ONCE)
    slow.released.set()
    await asyncio.gather(*kills)
    await until_running(client, lambda jobs: not jobs)


async def test_a_kill_renders_no_commands(conn_id, client, supervisor):
    """One may fail to be, or take its time."""
    trigger = started(in_dag(commands=[{"cmd": "sleep 300 # {{ dag_run.conf['x'] }}"}] * 2), conf={"x": "1"})
    earlier = Triggerer(trigger)
    await until_running(client, bool)
    await earlier.stop()
    again = started(in_dag(commands=[{"cmd": "{{ dag_run.conf['gone'] }}"}] * 2), conf={}, **try_of(trigger))
    supervisor.set(again.task_instance, "failed")
    await asyncio.wait_for(again.on_kill(), DEADLINE)
    await until_running(client, lambda jobs: not jobs)


async def test_a_template_that_fails_does_not_end_the_trigger(conn_id):
    trigger = started(in_dag(commands=[{"cmd": "{{ dag_run.conf['missing'] }}"}]), conf={})
    triggerer = Triggerer(trigger)
    await until(triggerer.task.done)
    triggerer.task.result()
    (event,) = triggerer.events
    assert event["state"] == "NOT_STARTED"
    assert "missing" in event["error_msg"]


async def test_a_variable_is_masked_in_all_that_is_told_and_not_stored(conn_id, monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW_VAR_DB_PASSWORD", SECRET)
    dag = in_dag(commands=[{"cmd": "echo {{ var.value.db_password }}; echo {{ var.value.db_password }} >&2"}])
    assert SECRET not in stored_trigger(dag)
    event = await fire(started(dag))
    (result,) = results(event)
    assert (result["out"], result["err"]) == ("***\n", "***\n")
    assert result["cmd"] == "echo ***; echo *** >&2"
    output = capsys.readouterr()
    assert "1 out | ***" in output.out
    assert SECRET not in output.out + output.err


async def test_a_secret_of_another_task_is_masked_in_that_one_alone(conn_id, monkeypatch):
    """A triggerer has met the secrets of many tasks."""
    monkeypatch.setenv("AIRFLOW_VAR_DB_PASSWORD", "production-host")
    assert results(await fire(started(in_dag(commands=[{"cmd": "echo {{ var.value.db_password }}"}]))))
    (result,) = results(await fire(started(in_dag(commands=[{"cmd": "echo production-{{ 'host' }}"}]))))
    assert (result["cmd"], result["out"]) == ("echo production-host", "production-host\n")


async def test_an_environment_variable_with_the_name_of_a_secret_is_masked(conn_id):
    dag = in_dag(
        commands=[{"cmd": "echo $DB_PASSWORD"}], env={"DB_PASSWORD": "{{ dag_run.conf['whatever'] }}"}
    )
    (result,) = results(await fire(started(dag, conf={"whatever": SECRET})))
    assert result["out"] == "***\n"


async def test_a_token_in_metadata_is_sent(serve, connect):
    server: ServerProcess = serve("[auth]\nairflow = tok-0123456789\n", "--host=127.0.0.1")
    connect(f"remsvc://{server.target}")
    token = "{{ dag_run.conf['x'] }}"
    dag = in_dag(metadata=[("authorization", f"Bearer {token}")], commands=[{"cmd": "echo in"}])
    (result,) = results(await fire(started(dag, conf={"x": "tok-0123456789"})))
    assert result["out"] == "in\n"


AGO = timedelta(hours=2)


async def test_execution_timeout_counts_from_the_deferral(conn_id):
    dag = in_dag(commands=[{"cmd": "sleep 60"}], execution_timeout=timedelta(hours=1))
    event = await fire(started(dag, deferred_at=datetime.now(timezone.utc) - AGO))
    assert event["state"] == "FAILED"
    assert "execution_timeout of 3600 s exceeded" in event["error_msg"]


@pytest.mark.parametrize(("retries", "left"), [(1, True), (0, False)])
async def test_what_runs_is_left_to_a_retry_where_there_is_one(conn_id, retries, left):
    dag = in_dag(
        commands=[{"cmd": "sleep 60"}], execution_timeout=timedelta(hours=1), durable=True, retries=retries
    )
    event = await fire(started(dag, deferred_at=datetime.now(timezone.utc) - AGO))
    assert ("left to the next try" in event["error_msg"]) is left


@pytest.mark.parametrize(("ago", "state"), [(timedelta(0), "FAILED"), (AGO, "CANCELLED")])
async def test_only_of_a_task_deferred_long_ago_the_commands_may_run_already(connect, ago, state):
    """The server cannot be asked: nothing ran for certain, or it is not known."""
    connect("remsvc://127.0.0.1:1")
    trigger = started(in_dag(stream_timeout=1.0), deferred_at=datetime.now(timezone.utc) - ago)
    assert (await fire(trigger))["state"] == state


@pytest.fixture
async def client(job_server: ServerProcess) -> AsyncClient:
    async with AsyncClient(ConnectionOptions(job_server.target)) as client:
        yield client
        async for job in client.list_jobs():
            if not job.ended:
                await client.cancel_job(job.id, kill=True)
        await until_running(client, lambda jobs: not jobs)


async def running(client: AsyncClient) -> list[str]:
    return [job.request_id async for job in client.list_jobs() if not job.ended]


async def until_running(client: AsyncClient, wanted: Callable[[list[str]], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not wanted(jobs := await running(client)):
        assert time.monotonic() < end, f"gave up waiting; running: {jobs}"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("state", "number", "ends"),
    [
        ("failed", 1, True),
        (None, 1, True),
        ("deferred", 1, False),
        ("deferred", 2, True),
        ("deferred", None, False),
    ],
    ids=["failed", "cleared", "moved to another triggerer", "cleared and deferred again", "not known"],
)
async def test_a_kill_ends_the_command_and_a_move_does_not(
    supervisor: Supervisor, conn_id, client, state, number, ends
):
    trigger = started(in_dag(commands=[{"cmd": "sleep 300"}]))
    triggerer = Triggerer(trigger)
    await until_running(client, bool)
    supervisor.set(trigger.task_instance, state)
    supervisor.tries = {"another run": 7}
    if number is not None:
        supervisor.tries[trigger.task_instance.run_id] = number
    await triggerer.lose_it()
    if ends:
        await until_running(client, lambda jobs: not jobs)
    else:
        assert [job.reason async for job in client.list_jobs() if not job.ended] == [""]


async def test_a_kill_before_it_has_started_is_no_fault(supervisor: Supervisor, conn_id, client):
    trigger = started(in_dag(), try_number=2)
    supervisor.set(trigger.task_instance, "failed")
    await trigger.on_kill()
    await trigger.cleanup()
    assert not await running(client)


async def test_a_task_that_another_version_has_stored_is_started(conn_id):
    """Of an earlier one this is the very text; of a later one there may be more."""
    stored = {
        "fields": {
            "commands": [{"cmd": "echo {{ ds }}", "cmdusr": ""}],
            "grpc_conn_id": conn_id,
            "metadata": None,
            "env": None,
            "cwd": None,
        },
        "stream_timeout": 60.0,
        "execution_timeout": None,
        "longest_deferral": 86400000.0,
        "options": {
            "max_output_bytes": 262144,
            "skip_on_exit_code": None,
            "parallel": 1,
            "durable": False,
            "on_kill": "cancel",
            "max_log_bytes": None,
            "log_drain": None,
        },
        "native": False,
        "reads_secrets": False,
    }
    for more in ({}, {"of_later_versions": True}):
        made_here = started(in_dag())
        trigger = RemSvcStartTrigger(parameters=json.dumps({**stored, **more}))
        trigger.task_instance = made_here.task_instance
        trigger.timeout_after = made_here.timeout_after
        trigger.render_template_fields(context=trigger.task_instance.get_template_context())
        event = await fire(trigger)
        assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
        assert results(event)[0]["out"].startswith("20")
