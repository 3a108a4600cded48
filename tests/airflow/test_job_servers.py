"""What becomes of durable jobs that end without an exit code, or on servers that are full or older."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from triggering import fire, restored, results, task_instance, trigger, until

from conftest import answer
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

# ---- ends that are no exit code


@pytest.mark.parametrize(
    ("state", "fields", "words"),
    [
        (jobs_pb2.CANCELLED, {"reason": "cancelled by ops"}, "was cancelled (job job1: cancelled by ops)"),
        (jobs_pb2.LOST, {"reason": "the host was rebooted"}, "what became of it is not known (job job1: the"),
        (jobs_pb2.LOST, {"exit_code": 0}, "is lost"),
        (jobs_pb2.FAILED, {"reason": "no such user"}, "ended with rc 1: no such user"),
        (jobs_pb2.FAILED, {"exit_code": 0}, "ended as FAILED with exit code 0"),
        (jobs_pb2.SUCCEEDED, {}, "ended as SUCCEEDED with exit code None"),
        (jobs_pb2.SUCCEEDED, {"exit_code": 2}, "ended as SUCCEEDED with exit code 2"),
    ],
)
async def test_only_exit_code_0_is_a_success(scripted_jobs, connect, state, fields, words):
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: scripted_jobs.jobs)
    scripted_jobs.change(scripted_jobs.jobs["job1"], state, **fields)
    event = await running
    assert event["state"] == "FAILED"
    assert event["error_msg"].startswith("command 1 (commands[0]) ")
    assert words in event["error_msg"]


async def test_after_a_cancelled_command_no_other_starts(scripted_jobs, connect):
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", "b")))
    await until(lambda: scripted_jobs.jobs)
    scripted_jobs.change(scripted_jobs.jobs["job1"], jobs_pb2.CANCELLED, reason="by ops")
    event = await running
    assert "the remaining 1 command(s) were not started" in event["error_msg"]
    assert len(scripted_jobs.jobs) == 1


# ---- servers that are full, forgetful or older


async def test_a_full_queue_is_waited_for(serve, connect, tmp_path: Path, capsys):
    conn_id = connect(
        f"remsvc://{serve('[jobs]' + chr(10) + 'max_running = 1' + chr(10) + 'max_queued = 0').target}"
    )
    go = tmp_path / "go"
    first = asyncio.create_task(
        fire(trigger(conn_id, f"touch {tmp_path}/on; until [ -e {go} ]; do sleep 0.02; done"))
    )
    await until((tmp_path / "on").exists)
    second = asyncio.create_task(fire(trigger(conn_id, "echo at last")))
    log = ""
    while "RESOURCE_EXHAUSTED" not in log:
        await asyncio.sleep(0.05)
        log += capsys.readouterr().out
    go.touch()
    assert (await first)["state"] == "SUCCESS"
    assert results(await second)[0]["out"] == "at last\n"


async def test_an_order_whose_answer_is_lost_is_given_again(scripted_jobs, connect):
    scripted_jobs.unanswered["CreateJob"] = 2
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: scripted_jobs.asked("WatchJob"))
    assert len(scripted_jobs.jobs) == 1
    scripted_jobs.change(scripted_jobs.jobs["job1"], jobs_pb2.SUCCEEDED, exit_code=0)
    assert (await running)["state"] == "SUCCESS"


async def test_a_job_that_the_server_has_forgotten_is_not_started_again(scripted_jobs, connect):
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", "b")))
    await until(lambda: scripted_jobs.watches)
    scripted_jobs.jobs.clear()
    scripted_jobs.stop()
    scripted_jobs.start()
    event = await running
    assert event["state"] == "FAILED"
    assert "does not know job job1 any more" in event["error_msg"]
    assert "not retried to prevent duplicate execution" in event["error_msg"]
    assert len(scripted_jobs.asked("CreateJob")) == 1


async def test_a_job_of_other_content_under_our_request_id_is_not_taken(scripted_jobs, connect):
    running = trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")
    refusal = (grpc.StatusCode.ALREADY_EXISTS, "the request id was used", ())
    scripted_jobs.refusals = {
        "GetJob": [(grpc.StatusCode.NOT_FOUND, "there is no such job", ())],
        "CreateJob": [refusal] * 2,
    }
    request_id = running.serialize()[1]["origin"]["request_id"]
    scripted_jobs.add(request_id=f"{request_id}/1", spec=jobs_pb2.JobSpec(shell_command="something else"))
    event = await fire(running)
    assert event["state"] == "FAILED"
    assert "ALREADY_EXISTS" in event["error_msg"]


async def test_the_job_of_a_quicker_twin_is_taken_whatever_a_policy_made_of_it(scripted_jobs, connect):
    """It shows another program and time limit than its creator asked for: the server is asked, in just
    those words of its creator, whether it is the same."""
    one = trigger(connect(f"remsvc://{scripted_jobs.target}"), {"argv": ["tool", "a"]})
    scripted_jobs.refusals = {
        "GetJob": [(grpc.StatusCode.NOT_FOUND, "there is no such job", ())],
        "CreateJob": [(grpc.StatusCode.ALREADY_EXISTS, "the request id was used", ())],
    }
    origin = one.serialize()[1]["origin"]
    labels = {**origin["labels"], "airflow_time_limit": "59.75"}
    spec = jobs_pb2.JobSpec(argv=jobs_pb2.Argv(args=["/opt/bin/tool", "a"]), labels=labels)
    spec.time_limit.FromSeconds(30)
    job = scripted_jobs.add(request_id=f"{origin['request_id']}/1", spec=spec)
    running = asyncio.create_task(fire(one))
    await until(lambda: scripted_jobs.watches)
    scripted_jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
    assert (await running)["state"] == "SUCCESS"
    first, again = scripted_jobs.asked("CreateJob")
    assert (again.request_id, again.spec.argv) == (first.request_id, first.spec.argv)
    assert again.spec.time_limit.ToMilliseconds() == 59_750
    assert dict(again.spec.labels) == labels
    assert len(scripted_jobs.jobs) == 1


async def test_calls_that_a_server_gives_up_as_it_ends_are_made_again(scripted_jobs, connect, capsys):
    given_up = (grpc.StatusCode.CANCELLED, "CANCELLED", ())
    scripted_jobs.refusals = {"GetJob": [given_up] * 2, "CreateJob": [given_up] * 2}
    scripted_jobs.watch_faults = [(1, grpc.StatusCode.CANCELLED)]
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: len(scripted_jobs.asked("WatchJob")) == 2)
    scripted_jobs.change(scripted_jobs.jobs["job1"], jobs_pb2.SUCCEEDED, exit_code=0)
    event = await running
    assert event["state"] == "SUCCESS"
    assert len(scripted_jobs.jobs) == 1
    assert "gave the call up" in capsys.readouterr().out


async def test_a_server_of_version_1(scripted, connect):
    server = scripted(lambda requests, _: (answer(request, out="v1\n") for request in requests))
    event = await fire(trigger(connect(f"remsvc://{server.target}"), "a", {"cmd": "b", "cmdusr": "nobody"}))
    assert event["state"] == "SUCCESS"
    assert [result["out"] for result in results(event)] == ["v1\n", "v1\n"]
    assert (server.commands[1].tid, server.commands[1].cmdusr) == (2, "nobody")
    assert server.calls == 1


async def test_jobs_switched_off(serve, connect):
    conn_id = connect(f"remsvc://{serve('[jobs]' + chr(10) + 'enabled = false').target}")
    assert results(await fire(trigger(conn_id, "echo v1")))[0]["out"] == "v1\n"


async def test_version_1_skips_and_shortens_as_well(scripted, connect):
    server = scripted(lambda requests, _: (answer(request, rc=99, out="0123456789") for request in requests))
    conn_id = connect(f"remsvc://{server.target}")
    event = await fire(trigger(conn_id, "a", skip_on_exit_code=[99], max_output_bytes=4))
    assert event["state"] == "SUCCESS"
    assert results(event)[0]["out"] == "0123\n\x01[remSvc: output truncated at 4 bytes]\x01\n"


@pytest.mark.parametrize(
    ("commands", "options", "words"),
    [
        ([{"argv": ["true"]}], {}, "commands[0] argv"),
        (["true", {"cmd": "true", "env": {"A": "1"}, "cwd": "/"}], {}, "commands[1] env, commands[1] cwd"),
        ([{"cmd": "cat", "input": "x"}], {}, "commands[0] input"),
        (["true"], {"parallel": 2}, "parallel=2"),
        (["true"], {"durable": True}, "durable=True"),
        (["true"], {"on_kill": "leave"}, "on_kill='leave'"),
    ],
)
async def test_what_version_1_cannot_do_is_said_before_anything_runs(
    scripted, connect, commands, options, words
):
    server = scripted(lambda requests, _: (answer(request) for request in requests))
    event = await fire(trigger(connect(f"remsvc://{server.target}"), *commands, **options))
    assert event["state"] == "FAILED"
    assert event["error_msg"] == f"{server.target} has no durable jobs, which {words} needs: nothing ran"
    assert server.calls == 0


async def test_a_trigger_of_an_older_version_uses_its_task_instance(conn_id, job_server):
    ti = task_instance(dag_id="older")
    stored = {
        "commands": [{"cmd": "echo $$", "cmdusr": None, "note": 1}],
        "grpc_conn_id": conn_id,
        "metadata": [],
    }
    one = trigger(conn_id, *stored["commands"], ti=ti, origin=None)
    first, second = await fire(one), await fire(restored(one, ti))
    assert first["state"] == "SUCCESS"
    assert first == second  # the same process: it ran once


async def test_serialized_arguments(conn_id):
    one = trigger(
        conn_id, "true", parallel=2, durable=True, on_kill="leave", skip_on_exit_code=[9], deferred_at=7.0
    )
    _, arguments = one.serialize()
    assert json.loads(json.dumps(arguments)) == arguments
    assert (arguments["parallel"], arguments["durable"], arguments["on_kill"]) == (2, True, "leave")
    assert (arguments["skip_on_exit_code"], arguments["deferred_at"]) == ([9], 7.0)
    assert restored(one).serialize()[1] == arguments
    with pytest.raises(TypeError, match="paralel"):
        type(one)(commands=[], paralel=2)
