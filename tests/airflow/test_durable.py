"""``durable=True``: a retry takes over what the try before has left, a clear starts afresh."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from test_job_log import LogReader, log  # noqa: F401  a fixture
from triggering import (
    RUN_STARTED,
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
from remsvc.client.jobs import JobSpec
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from remsvc_provider.origin import Origin
from remsvc_provider.triggers.remsvc import RemSvcTrigger


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Gets a line for each run of a command."""
    return tmp_path / "trace"


def retried_task(**changes):
    ti = task_instance(max_tries=3, **changes)
    ti.task.retries = 3
    return ti


async def cut_off(one, trace: Path, lines: int = 1) -> None:
    """Run a trigger until its commands have left so many traces, then stop its triggerer."""
    triggerer = Triggerer(one)
    await until(lambda: trace.exists() and len(trace.read_text().split()) >= lines)
    await triggerer.stop()


async def test_a_running_command_is_taken_over(conn_id, trace, tmp_path, log: LogReader):  # noqa: F811
    command = f"echo x >> {trace}; echo begin; until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo end"
    ti = retried_task()
    await cut_off(trigger(conn_id, command, ti=ti, durable=True), trace)
    again = asyncio.create_task(fire(trigger(conn_id, command, ti=next_try(ti), durable=True)))
    await until(lambda: "Command 1 is taken over from try 1: job " in log.text)
    (tmp_path / "go").touch()
    event = await again
    assert event["state"] == "SUCCESS"
    assert results(event)[0]["out"] == "begin\nend\n"
    assert trace.read_text() == "x\n"


async def test_what_has_succeeded_meanwhile_is_taken_over(conn_id, trace, tmp_path, job_server):
    ti = retried_task()
    command = f"echo x >> {trace}; until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo done"
    await cut_off(trigger(conn_id, command, ti=ti, durable=True), trace)
    (tmp_path / "go").touch()
    async with AsyncClient(ConnectionOptions(job_server.target)) as client:
        job = await anext(client.list_jobs())
        async for _ in client.watch_job(job.id):
            pass
    event = await fire(trigger(conn_id, command, ti=next_try(ti), durable=True))
    assert results(event)[0]["out"] == "done\n"
    assert trace.read_text() == "x\n"
    event = await fire(trigger(conn_id, command, ti=next_try(next_try(ti)), durable=True))
    assert results(event)[0]["out"] == "done\n"
    assert trace.read_text() == "x\n"


async def test_what_has_failed_runs_again(conn_id, trace):
    ti = retried_task()
    command = f"echo x >> {trace}; exit 3"
    for _ in range(2):
        assert (await fire(trigger(conn_id, command, ti=ti, durable=True)))["state"] == "FAILED"
        ti = next_try(ti)
    assert trace.read_text() == "x\nx\n"


async def test_what_follows_a_command_that_runs_again_runs_again_too(conn_id, trace):
    ti = retried_task()
    commands = [
        f"echo {name} >> {trace}; {work}" for name, work in (("a", "true"), ("b", "false"), ("c", "true"))
    ]
    await fire(trigger(conn_id, *commands, ti=ti, durable=True))
    event = await fire(trigger(conn_id, *commands, ti=next_try(ti), durable=True))
    assert trace.read_text().split() == ["a", "b", "c", "b", "c"]
    assert [result["rc"] for result in results(event)] == [0, 1, 0]


async def test_side_by_side_only_what_failed_runs_again(conn_id, trace):
    ti = retried_task()
    commands = [
        f"echo {name} >> {trace}; {work}" for name, work in (("a", "true"), ("b", "false"), ("c", "true"))
    ]
    await fire(trigger(conn_id, *commands, ti=ti, durable=True, parallel=3))
    await fire(trigger(conn_id, *commands, ti=next_try(ti), durable=True, parallel=3))
    assert sorted(trace.read_text().split()) == ["a", "b", "b", "c"]


async def test_a_clear_starts_afresh(conn_id, trace):
    ti = retried_task()
    command = f"echo x >> {trace}"
    await fire(trigger(conn_id, command, ti=ti, durable=True))
    cleared = next_try(ti, cleared=True)
    await fire(trigger(conn_id, command, ti=cleared, durable=True))
    assert trace.read_text() == "x\nx\n"
    await fire(trigger(conn_id, command, ti=next_try(cleared), durable=True))
    assert trace.read_text() == "x\nx\n"


async def test_a_clear_ends_what_still_runs_first(conn_id, trace):
    ti = retried_task()
    command = f"echo $$ >> {trace}; sleep 300"
    await cut_off(trigger(conn_id, command, ti=ti, durable=True), trace)
    afresh = Triggerer(trigger(conn_id, command, ti=next_try(ti, cleared=True), durable=True))
    await until(lambda: len(trace.read_text().split()) == 2)
    first = trace.read_text().split()[0]
    assert not Path(f"/proc/{first}").exists()
    await afresh.stop()


async def test_a_command_that_has_changed_runs_again(conn_id, trace):
    ti = retried_task()
    await fire(trigger(conn_id, f"echo x >> {trace}; echo try 1", ti=ti, durable=True))
    event = await fire(trigger(conn_id, f"echo x >> {trace}; echo try 2", ti=next_try(ti), durable=True))
    assert results(event)[0]["out"] == "try 2\n"
    assert trace.read_text() == "x\nx\n"


@pytest.mark.parametrize(("before", "after"), [("one\n", "two\n"), (None, "two\n"), ("one\n", None)])
async def test_a_command_whose_input_has_changed_runs_again(conn_id, trace, before, after):
    """The server tells nobody a job's input: it may be a secret."""
    ti = retried_task()
    outputs = []
    for text in (before, after, after):
        command = {"cmd": f"echo x >> {trace}; cat", **({"input": text} if text else {})}
        event = await fire(trigger(conn_id, command, ti=ti, durable=True))
        outputs.append(results(event)[0]["out"])
        ti = next_try(ti)
    assert outputs == [before or "", after or "", after or ""]
    assert trace.read_text() == "x\nx\n"


async def test_a_running_command_whose_input_has_changed_is_ended_first(conn_id, trace):
    ti = retried_task()
    command = {"cmd": f"echo $$ >> {trace}; read go; [ $go = yes ] || sleep 300"}
    await cut_off(trigger(conn_id, {**command, "input": "no\n"}, ti=ti, durable=True), trace)
    event = await fire(trigger(conn_id, {**command, "input": "yes\n"}, ti=next_try(ti), durable=True))
    assert event["state"] == "SUCCESS"
    first, _ = trace.read_text().split()
    assert not Path(f"/proc/{first}").exists()


async def test_a_run_of_the_same_name_has_nothing_to_take_over(conn_id, trace):
    names = {"dag_id": "dag", "run_id": "scheduled__2030-01-01", "task_id": "remote"}
    first = retried_task(**names)
    await fire(trigger(conn_id, f"echo x >> {trace}", ti=first, durable=True))
    second = next_try(retried_task(**names))
    origin = Origin.of(second, context(second, RUN_STARTED.replace(year=2031)))
    await fire(trigger(conn_id, f"echo x >> {trace}", ti=second, durable=True, origin=origin.arguments()))
    assert trace.read_text() == "x\nx\n"


def after_the_run_was_cleared(ti, by=timedelta(hours=1)):
    """The try after somebody cleared the task when its DAG run had ended: Airflow starts the run over."""
    cleared = next_try(ti, cleared=True)
    return cleared, {"origin": Origin.of(cleared, context(cleared, RUN_STARTED + by, 1)).arguments()}


@pytest.mark.parametrize("durable", [False, True])
async def test_a_clear_of_an_ended_run_ends_what_still_runs_first(conn_id, trace, durable):
    ti = retried_task()
    command = f"echo $$ >> {trace}; sleep 300"
    await cut_off(trigger(conn_id, command, ti=ti, durable=durable), trace)
    cleared, options = after_the_run_was_cleared(ti)
    afresh = Triggerer(trigger(conn_id, command, ti=cleared, durable=durable, **options))
    await until(lambda: len(trace.read_text().split()) == 2)
    first = trace.read_text().split()[0]
    assert not Path(f"/proc/{first}").exists()
    await afresh.stop()


async def test_what_has_succeeded_before_an_ended_run_was_cleared_runs_again(conn_id, trace):
    ti = retried_task()
    await fire(trigger(conn_id, f"echo x >> {trace}", ti=ti, durable=True))
    cleared, options = after_the_run_was_cleared(ti)
    await fire(trigger(conn_id, f"echo x >> {trace}", ti=cleared, durable=True, **options))
    assert trace.read_text() == "x\nx\n"
    retry, options = next_try(cleared), options | {"origin": {**options["origin"], "try_number": 3}}
    await fire(trigger(conn_id, f"echo x >> {trace}", ti=retry, durable=True, **options))
    assert trace.read_text() == "x\nx\n", "a retry takes over what the cleared try has got done"


async def test_another_airflows_run_of_the_same_name_is_left_alone(conn_id, trace):
    """Whose identity is the same, and whose run started later than ours, whatever is cleared here."""
    names = {"dag_id": "dag", "run_id": "scheduled__2030-02-02", "task_id": "remote"}
    theirs = retried_task(**names)
    origin = Origin.of(theirs, context(theirs, RUN_STARTED.replace(year=2032))).arguments()
    await cut_off(trigger(conn_id, f"echo $$ >> {trace}; sleep 300", ti=theirs, origin=origin), trace)
    ours, options = after_the_run_was_cleared(retried_task(**names))
    await fire(trigger(conn_id, "true", ti=ours, **options))
    assert Path(f"/proc/{trace.read_text().strip()}").exists()


async def test_a_job_of_the_version_before_is_taken_over(conn_id, job_server, trace):
    """Its labels do not tell the time limit that was asked for."""
    ti = retried_task()
    origin = Origin.of(ti, context(ti))
    async with AsyncClient(ConnectionOptions(job_server.target)) as client:
        job = await client.create_job(
            JobSpec(
                shell_command=f"echo x >> {trace}", labels=origin.command_labels(1), time_limit=59.987654321
            ),
            origin.command_id(1),
        )
        async for _ in client.watch_job(job.id):
            pass
    await fire(trigger(conn_id, f"echo x >> {trace}", ti=next_try(ti), durable=True))
    assert trace.read_text() == "x\n"


async def test_a_try_that_a_server_made_up_is_no_try(scripted_jobs, connect):
    ti = retried_task()
    labels = {**Origin.of(ti, context(ti)).labels, "airflow_try_number": "9" * 5000, "airflow_command": "1"}
    theirs = scripted_jobs.add(spec=jobs_pb2.JobSpec(shell_command="a", labels=labels))
    scripted_jobs.change(theirs, jobs_pb2.SUCCEEDED, exit_code=0)
    running = asyncio.create_task(
        fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", ti=next_try(ti), durable=True))
    )
    await until(lambda: len(scripted_jobs.jobs) > 1)
    scripted_jobs.change(scripted_jobs.jobs["job2"], jobs_pb2.SUCCEEDED, exit_code=0)
    assert (await running)["state"] == "SUCCESS"


async def test_a_trigger_that_the_version_before_stored_still_runs(conn_id):
    ti = retried_task()
    one = trigger(conn_id, "echo one", ti=ti, durable=True)
    _, stored = one.serialize()
    assert stored["origin"].keys() == {
        *("request_id", "labels", "try_number", "first_try"),
        *("run_cleared", "last_try"),  # which it did not know
    }
    del stored["origin"]["run_cleared"], stored["origin"]["last_try"]
    again = restored(RemSvcTrigger(**stored), ti)
    assert results(await fire(again))[0]["out"] == "one\n"


async def test_what_a_policy_has_changed_is_taken_over(serve, connect, trace, tmp_path, log: LogReader):  # noqa: F811
    """It gives the job less time than was asked for, and another path of the program."""
    sleep = tmp_path / "bin" / "wait"
    sleep.parent.mkdir()
    sleep.write_text(f"#!/bin/sh\necho x >> {trace}\nuntil [ -e {tmp_path}/go ]; do sleep 0.02; done\n")
    sleep.chmod(0o755)
    server = serve(f"[identity *]\nprograms = {sleep}\nshells = none\ntime_limit_ms = 30000\n")
    conn_id, ti, command = (
        connect(f"remsvc://{server.target}"),
        retried_task(),
        {"argv": [f"{sleep.parent}/./wait"]},
    )
    await cut_off(trigger(conn_id, command, ti=ti, durable=True), trace)
    again = asyncio.create_task(fire(trigger(conn_id, command, ti=next_try(ti), durable=True)))
    await until(lambda: "Command 1 is taken over from try 1: job " in log.text)
    (tmp_path / "go").touch()
    assert (await again)["state"] == "SUCCESS"
    assert trace.read_text() == "x\n"


async def test_without_it_a_retry_runs_again(conn_id, trace):
    ti = retried_task()
    for _ in range(2):
        await fire(trigger(conn_id, f"echo x >> {trace}", ti=ti))
        ti = next_try(ti)
    assert trace.read_text() == "x\nx\n"


@pytest.mark.parametrize("state", ["up_for_retry", "scheduled", "queued", "running"])
async def test_a_stalled_triggerer_leaves_to_a_retry_what_it_may_take_over(
    supervisor, conn_id, job_server, trace, state
):
    ti = retried_task()
    one = trigger(conn_id, f"echo $$ >> {trace}; sleep 300", ti=ti, durable=True)
    triggerer = Triggerer(one)
    await until(trace.exists)
    supervisor.set(ti, state)
    await triggerer.lose_it()  # which waits for the answers to the orders that it gives
    async with AsyncClient(ConnectionOptions(job_server.target)) as client:
        newest, *_ = [job async for job in client.list_jobs()]
    assert newest.reason == ""
    assert Path(f"/proc/{trace.read_text().strip()}").exists()
