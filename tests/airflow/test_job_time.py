"""How long durable jobs may take: stream_timeout, execution_timeout, and waiting for the server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from triggering import DEADLINE, Triggerer, fire, task_instance, trigger, until

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from remsvc_provider.origin import Origin
from remsvc_provider.parameters import LONGEST_SECONDS
from remsvc_provider.running.channels import pooled_transport


async def test_the_longest_stream_timeout(conn_id):
    limit = float(LONGEST_SECONDS)
    by_jobs, over_a_stream = (
        trigger(conn_id, "true", stream_timeout=limit, **more) for more in ({}, {"origin": None})
    )
    over_a_stream.task_instance = None
    for one in (by_jobs, over_a_stream):
        assert (await fire(one))["state"] == "SUCCESS"


async def test_stream_timeout_ends_the_command(conn_id, tmp_path: Path):
    mark = tmp_path / "pid"
    started = time.monotonic()
    event = await fire(
        trigger(conn_id, "echo done", f"echo $$ > {mark}; sleep 60", "echo never", stream_timeout=5.0)
    )
    assert time.monotonic() - started < DEADLINE
    assert event["state"] == "CANCELLED"
    assert event["error_msg"].startswith("stream_timeout of 5 s exceeded")
    assert "1 of 3 command(s) had ended" in event["error_msg"]
    assert list(event["results"]) == ["1"]
    pid = int(mark.read_text())
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_a_command_that_waits_for_its_turn_is_not_said_to_run(serve, connect, tmp_path, capsys):
    server = serve("[jobs]\nmax_running = 1\n")
    conn_id = connect(f"remsvc://{server.target}")
    first = asyncio.create_task(
        fire(trigger(conn_id, f"touch {tmp_path}/1; until [ -e {tmp_path}/go ]; do sleep 0.02; done"))
    )
    await until((tmp_path / "1").exists)
    event = await fire(trigger(conn_id, "echo late", stream_timeout=1.0))
    assert event["state"] == "CANCELLED"
    limit = "stream_timeout of 1 s exceeded, what waited for its turn was withdrawn: 0 of 1"
    assert event["error_msg"].startswith(limit)
    log = capsys.readouterr().out
    assert "Command 1: echo late" in log
    assert "waits for its turn as job " in log
    assert " had not begun, and is withdrawn: " in log
    second = asyncio.create_task(fire(trigger(conn_id, "echo late")))
    await until(lambda: "waits for its turn as job " in capsys.readouterr().out)
    (tmp_path / "go").touch()
    assert [(await each)["state"] for each in (first, second)] == ["SUCCESS", "SUCCESS"]
    assert " has started" in capsys.readouterr().out


async def test_waiting_for_a_server_that_takes_nothing_may_be_tried_again(serve, connect, tmp_path):
    """Nothing ran: the task fails as one that may be retried, unlike where its time ran out."""
    server = serve("[jobs]\nmax_running = 1\nmax_queued = 1\n")
    conn_id = connect(f"remsvc://{server.target}")
    held = Triggerer(trigger(conn_id, f"touch {tmp_path}/1; sleep 300", "true", parallel=2))
    await until((tmp_path / "1").exists)
    async with AsyncClient(ConnectionOptions(server.target)) as client:
        while len([job async for job in client.list_jobs()]) < 2:
            await asyncio.sleep(0.02)
    event = await fire(trigger(conn_id, f"touch {tmp_path}/2", stream_timeout=2.0))
    assert event["state"] == "FAILED"
    assert event["error_msg"].startswith("stream_timeout of 2 s exceeded, and nothing ran: ")
    assert "RESOURCE_EXHAUSTED" in event["error_msg"]
    await held.stop()


async def test_waiting_for_a_free_call_may_be_tried_again(serve, connect, tmp_path):
    """Of a connection's calls, which all that runs in one triggerer shares."""
    server = serve("[limits]\nmax_streams = 1\nmax_connections = 1\n")
    conn_id = connect(f"remsvc://{server.target}")
    held = Triggerer(trigger(conn_id, f"touch {tmp_path}/1; sleep 300"))
    await until((tmp_path / "1").exists)
    event = await fire(trigger(conn_id, f"touch {tmp_path}/2", stream_timeout=2.0))
    assert event["state"] == "FAILED"
    assert event["error_msg"] == "stream_timeout of 2 s exceeded, and nothing ran: no call came through"
    await held.stop()


async def test_waiting_for_a_free_call_takes_no_time_from_the_command(serve, connect, tmp_path):
    server = serve("[limits]\nmax_streams = 1\nmax_connections = 1\n")
    conn_id = connect(f"remsvc://{server.target}")
    held = Triggerer(trigger(conn_id, f"touch {tmp_path}/1; sleep 2"))
    await until((tmp_path / "1").exists)
    one = trigger(conn_id, "sleep 0.1", stream_timeout=30.0)
    assert (await fire(one))["state"] == "SUCCESS"
    options = ConnectionOptions(server.target).for_jobs()
    with pooled_transport(options) as transport:
        client = AsyncClient.over(transport, options)
        request_id = Origin.from_arguments(one.serialize()[1]["origin"]).command_id(1)
        job = await client.get_job(request_id=request_id)
    assert job.spec.time_limit == pytest.approx(30.0, abs=0.5)
    await held.task


async def test_stream_timeout_ends_what_runs_beside(conn_id, tmp_path: Path):
    commands = [f"echo $$ > {tmp_path}/{n}; sleep 60" for n in range(3)]
    event = await fire(trigger(conn_id, *commands, parallel=3, stream_timeout=5.0))
    assert event["state"] == "CANCELLED"
    for n in range(3):
        pid = int((tmp_path / str(n)).read_text())
        await until(lambda pid=pid: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize(
    ("options", "retries", "ends"),
    [
        ({}, 1, True),
        ({"on_kill": "leave"}, 1, False),
        ({"durable": True}, 1, False),
        ({"durable": True}, 0, True),
        ({"durable": True, "on_kill": "leave"}, 0, False),
    ],
)
async def test_execution_timeout_fails_the_try(conn_id, tmp_path: Path, options, retries, ends):
    """As a failure that may be retried; a durable retry, if there is one, takes over what runs. It counts
    from the deferral, whichever triggerer sees it pass."""
    ti = task_instance(max_tries=retries)
    pid, go, done = (tmp_path / name for name in ("pid", "go", "done"))
    command = f"echo $$ > {pid}.new; mv {pid}.new {pid}; until [ -e {go} ]; do sleep 0.02; done; touch {done}"
    first = Triggerer(trigger(conn_id, command, ti=ti, **options))
    await until(pid.exists)
    await first.stop()
    again = trigger(conn_id, command, ti=ti, deferred_at=time.time() - 60, execution_timeout=50.0, **options)
    event = await fire(again)
    assert event["state"] == "FAILED"
    assert event["error_msg"] == "execution_timeout of 50 s exceeded, " + (
        "what ran was cancelled"
        if ends
        else "what runs goes on (on_kill is 'leave')"
        if "on_kill" in options
        else "what runs is left to the next try (durable)"
    )
    if ends:
        await until(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
    go.touch()
    if not ends:
        await until(done.exists)
    assert done.exists() is not ends


async def test_execution_timeout_ends_a_command_of_version_1(scripted, connect):
    def hang(requests, _):
        for _ in requests:
            server.ended.wait(DEADLINE)
            yield from ()

    server = scripted(hang)
    one = trigger(connect(f"remsvc://{server.target}"), "a", deferred_at=time.time(), execution_timeout=1.0)
    problem = (await fire(one))["error_msg"]
    assert problem == "execution_timeout of 1 s exceeded, the call was cancelled"
    await until(server.ended.is_set)


async def test_the_server_knows_what_remains_of_stream_timeout(scripted_jobs, connect):
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", "b")))
    await until(lambda: scripted_jobs.jobs)
    first = scripted_jobs.asked("CreateJob")[0].spec
    await asyncio.sleep(0.1)  # time that the first command takes
    scripted_jobs.change(scripted_jobs.jobs["job1"], jobs_pb2.SUCCEEDED, exit_code=0)
    await until(lambda: len(scripted_jobs.jobs) == 2)
    second = scripted_jobs.asked("CreateJob")[1].spec
    scripted_jobs.change(scripted_jobs.jobs["job2"], jobs_pb2.SUCCEEDED, exit_code=0)
    assert (await running)["state"] == "SUCCESS"
    assert 50 < first.time_limit.ToMilliseconds() / 1000 <= 60
    assert 20 < second.time_limit.ToMilliseconds() / 1000 <= 59.9


async def test_a_server_that_does_not_end_a_command_in_time_is_told_to(scripted_jobs, connect):
    event = await fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", stream_timeout=3.0))
    assert event["state"] == "CANCELLED"
    (order,) = scripted_jobs.asked("CancelJob")
    assert (order.id, order.reason) == ("job1", "stream_timeout of 3 s exceeded")


async def test_a_server_that_is_gone_does_not_hold_up_stream_timeout(scripted_jobs, connect, capsys):
    conn_id = connect(f"remsvc://{scripted_jobs.target}")
    running = asyncio.create_task(fire(trigger(conn_id, "a", stream_timeout=5.0)))
    await until(lambda: scripted_jobs.watches)
    scripted_jobs.silent |= {"GetJob", "ListJobs", "CancelJob"}
    started = time.monotonic()
    event = await running
    assert time.monotonic() - started < DEADLINE
    assert event["state"] == "CANCELLED"
    assert "ended by its time limit" in capsys.readouterr().out
