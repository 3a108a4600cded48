"""The trigger over durable jobs: what it runs, and the results that it gives."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
from pathlib import Path

import grpc
import pytest
from triggering import fire, results, trigger, until

from remsvc.command import crc32hex
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2


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
