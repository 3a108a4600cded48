"""The trigger over durable jobs: what it gives, and what becomes of commands that go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import time
from pathlib import Path

import grpc
import pytest
from triggering import DEADLINE, Triggerer, fire, restored, results, task_instance, trigger, until

from conftest import answer
from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.command import crc32hex
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from remsvc_provider.origin import Origin
from remsvc_provider.parameters import LONGEST_SECONDS
from remsvc_provider.running.channels import pooled_transport


async def test_results_are_those_of_version_1(conn_id):
    commands = [
        "echo one",
        {"cmd": "echo two >&2; printf '\\344\\n'", "cmdtyp": 0, "src": "dag"},
        "exit 3",
        "kill -9 $$",
        {"cmd": "true", "cmdusr": "no-such-user"},
    ]
    by_jobs = await fire(trigger(conn_id, *commands))
    over_a_stream = trigger(conn_id, *commands, origin=None)
    over_a_stream.task_instance = None
    over_a_stream = await fire(over_a_stream)
    assert by_jobs["results"] == over_a_stream["results"]
    assert by_jobs["state"] == over_a_stream["state"] == "FAILED"
    assert by_jobs["error_msg"] == over_a_stream["error_msg"]
    assert by_jobs["results"]["1"] == {
        "tid": 1,
        "rc": 0,
        "out": "one\n",
        "err": "",
        "hsh": crc32hex("echo one"),
        "cmd": "echo one",
    }
    assert [result["rc"] for result in results(by_jobs)] == [0, 0, 3, 137, 1]


async def test_success(conn_id):
    event = await fire(trigger(conn_id, *(f"echo {n}" for n in range(12))))
    assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
    assert [result["out"] for result in results(event)] == [f"{n}\n" for n in range(12)]


async def test_one_command_after_another(conn_id, tmp_path: Path):
    trace = tmp_path / "trace"
    command = f"echo begin >> {trace}; sleep 0.1; echo end >> {trace}"
    assert (await fire(trigger(conn_id, command, command, command)))["state"] == "SUCCESS"
    assert trace.read_text().split() == ["begin", "end"] * 3


async def test_side_by_side(conn_id, tmp_path: Path):
    meet = "touch {0}/{1}; until [ -e {0}/{2} ]; do sleep 0.02; done; echo {1}"
    commands = [meet.format(tmp_path, "a", "b"), meet.format(tmp_path, "b", "a"), "echo c"]
    event = await fire(trigger(conn_id, *commands, parallel=2))
    assert event["state"] == "SUCCESS"
    assert [result["out"] for result in results(event)] == ["a\n", "b\n", "c\n"]


async def test_never_more_side_by_side_than_wanted(conn_id, tmp_path: Path):
    command = f"mkdir {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.2; rmdir {tmp_path}/$$"
    event = await fire(trigger(conn_id, *[command] * 7, parallel=3))
    assert max(int(result["out"]) for result in results(event)) <= 3


async def test_argv_env_cwd_and_input(conn_id, tmp_path: Path):
    event = await fire(
        trigger(
            conn_id,
            {"argv": ["printf", "%s|", "a b", "$HOME", "*"]},
            {"cmd": 'echo "$GREETING"; pwd', "env": {"GREETING": "hi ä"}, "cwd": str(tmp_path)},
            {"cmd": "cat", "input": "grüße"},
            {"argv": ["od", "-An", "-tx1"], "input": {"base64": "AAH/"}},
        )
    )
    assert event["state"] == "SUCCESS"
    printed, where, text, data = results(event)
    assert (printed["out"], printed["cmd"]) == ("a b|$HOME|*|", "printf '%s|' 'a b' '$HOME' '*'")
    assert printed["hsh"] == crc32hex("printf\0%s|\0a b\0$HOME\0*")
    assert where["out"] == f"hi ä\n{tmp_path}\n"
    assert text["out"] == "grüße"
    assert data["out"].split() == ["00", "01", "ff"]


async def test_what_cannot_be_started_is_said(conn_id):
    event = await fire(trigger(conn_id, {"cmd": "true", "cwd": "/no/such/directory"}, "echo next"))
    assert event["state"] == "FAILED"
    assert "command 1 (commands[0]) ended with rc 1: " in event["error_msg"]
    assert "/no/such/directory" in event["error_msg"]
    assert event["results"]["2"]["out"] == "next\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start commands as another user")
async def test_another_user(conn_id):
    event = await fire(trigger(conn_id, {"argv": ["id", "-u"], "cmdusr": "nobody"}))
    assert event["results"]["1"]["out"] == f"{pwd.getpwnam('nobody').pw_uid}\n"


async def test_exit_codes_that_skip_do_not_fail(conn_id):
    event = await fire(trigger(conn_id, "exit 99", "true", skip_on_exit_code=[99]))
    assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
    assert [result["rc"] for result in results(event)] == [99, 0]
    event = await fire(trigger(conn_id, "exit 99", "exit 1", skip_on_exit_code=[99]))
    assert (event["state"], event["error_msg"]) == ("FAILED", "command 2 (commands[1]) ended with rc 1")


async def test_a_denied_command_ends_the_run(serve, connect):
    conn_id = connect(f"remsvc://{serve('[denylist]' + chr(10) + '1 = forbidden').target}")
    event = await fire(trigger(conn_id, "echo fine", "echo forbidden", "echo never", "echo never"))
    assert event["state"] == "FAILED"
    assert "command 2 (commands[1]) failed: " in event["error_msg"]
    assert "PERMISSION_DENIED: command denied by denylist" in event["error_msg"]
    assert event["error_msg"].endswith("; the remaining 2 command(s) were not started")
    assert list(event["results"]) == ["1"]


async def test_token(serve, connect):
    server = serve("[auth]\nairflow = tok-0123456789\n", "--host=127.0.0.1")
    uri = f'remsvc://{server.target}?extra={{"bearer_token":"tok-0123456789"}}'
    event = await fire(trigger(connect(uri), "echo safe", metadata=[("Authorization", "Bearer wrong")]))
    assert event["results"]["1"]["out"] == "safe\n"
    event = await fire(trigger(connect(uri.replace("tok-", "bad-")), "echo safe"))
    assert "UNAUTHENTICATED: invalid bearer token" in event["error_msg"]


# ---- the results' size


async def test_a_long_output_is_cut_and_says_where_the_rest_is(conn_id):
    event = await fire(trigger(conn_id, "printf '%s' 0123456789; printf 'äöü' >&2", max_output_bytes=5))
    (result,) = results(event)
    out, note = result["out"].split("\n\x01[remSvc: output truncated at 5 bytes]\x01\n")
    assert out == "01234"
    assert note.startswith("[remSvc: all of it: remsvc jobs logs ")
    assert result["err"].startswith(
        "äö\n\x01[remSvc: output truncated at 5 bytes]\x01\n"
    )  # no half a character


async def test_an_output_of_just_that_size_is_whole(conn_id):
    event = await fire(trigger(conn_id, "printf '%s' 01234", max_output_bytes=5))
    assert results(event)[0]["out"] == "01234"


async def test_output_that_the_server_dropped_is_marked(scripted_jobs, connect, capsys):
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: scripted_jobs.jobs)
    job = scripted_jobs.jobs["job1"]
    job.message.stdout.head_bytes, job.message.stdout.dropped_bytes = 6, 7
    scripted_jobs.write(job, b"first\ndroppedlast\n")
    scripted_jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
    (result,) = results(await running)
    assert result["out"] == "first\n\n\x01[remSvc: 7 bytes were not kept by the server]\x01\nlast\n"
    log = capsys.readouterr().out
    where = [
        log.index(f"1 out | {line}") for line in ("first", "... 7 bytes were not kept by the server", "last")
    ]
    assert where == sorted(where)


@pytest.mark.parametrize("code", [0, 3])
async def test_output_that_could_not_be_stored_is_told_everywhere(scripted_jobs, connect, capsys, code):
    """On a full disk a command goes on; its end is what was lost."""
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: scripted_jobs.jobs)
    job = scripted_jobs.jobs["job1"]
    scripted_jobs.write(job, b"first\n")
    job.message.stdout.total_bytes, job.message.stdout.dropped_bytes = 106, 100
    why = "100 bytes of standard output could not be stored: No space left on device"
    state = jobs_pb2.FAILED if code else jobs_pb2.SUCCEEDED
    scripted_jobs.change(job, state, exit_code=code, reason=why)
    event = await running
    (result,) = results(event)
    assert result["out"] == "first\n\n\x01[remSvc: 100 bytes were not kept by the server]\x01\n"
    assert event["state"] == ("FAILED" if code else "SUCCESS")
    if code:
        assert (
            event["error_msg"] == f"command 1 (commands[0]): {why}; command 1 (commands[0]) ended with rc 3"
        )
    log = capsys.readouterr().out
    assert log.index("1 out | first") < log.index("1 out | ... 100 bytes were not kept by the server")
    assert re.search(rf"Command 1 ended with rc {code} after \S+ s: {why}", log)


async def test_output_shorter_than_recorded_is_told_as_what_it_is(scripted_jobs, connect, capsys):
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: scripted_jobs.jobs)
    job = scripted_jobs.jobs["job1"]
    scripted_jobs.write(job, b"first\n")
    job.message.stdout.total_bytes = job.message.stdout.head_bytes = 106
    scripted_jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
    event = await running
    assert event["state"] == "SUCCESS"
    said = "100 bytes are missing: the server's record speaks of them, and it has them no more"
    assert results(event)[0]["out"] == f"first\n\n\x01[remSvc: {said}]\x01\n"
    assert f"1 out | ... {said}" in capsys.readouterr().out


async def test_a_silent_command_outlasts_a_proxy_that_ends_idle_calls(scripted_jobs, connect):
    """With a status that a defect of the server might have as well."""
    scripted_jobs.watch_faults, scripted_jobs.silence = [(1, grpc.StatusCode.INTERNAL)] * 12, 0.2
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: len(scripted_jobs.asked("WatchJob")) == 13)
    scripted_jobs.change(scripted_jobs.jobs["job1"], jobs_pb2.SUCCEEDED, exit_code=0)
    assert (await running)["state"] == "SUCCESS"


async def test_output_fits_into_airflows_database(conn_id, capsys):
    event = await fire(trigger(conn_id, r"printf 'a\000b'"))
    assert results(event)[0]["out"] == "a\ufffdb"
    assert "NUL characters" in capsys.readouterr().out


# ---- time


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
