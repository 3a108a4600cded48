"""The trigger, run in an event loop as the triggerer does, against real servers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import aclosing
from pathlib import Path

import airflow
import grpc
import pytest
from airflow.triggers.base import TriggerEvent
from cryptography.fernet import Fernet
from packaging.version import Version
from triggering import until

from conftest import answer, in_a_thread
from remsvc.command import crc32hex
from remsvc_provider.triggers.remsvc import RemSvcTrigger

DEADLINE = 30


async def fire(trigger: RemSvcTrigger) -> dict:
    """Run a trigger as the triggerer does: its one event's payload, after a trip through JSON."""
    async with aclosing(trigger.run()) as events:
        payloads = [event.payload async for event in events]
    assert len(payloads) == 1
    assert list(payloads[0]) == ["state", "results", "error_msg"]
    assert all(isinstance(tid, int) for tid in payloads[0]["results"])
    return json.loads(json.dumps(payloads[0]))


def trigger(conn_id: str, *cmds: str | dict, **options) -> RemSvcTrigger:
    commands = [{"cmd": cmd} if isinstance(cmd, str) else cmd for cmd in cmds]
    return RemSvcTrigger(commands=commands, grpc_conn_id=conn_id, **{"stream_timeout": 60.0, **options})


# ---- against our own server


async def test_results_of_all_commands(serve, connect):
    conn_id = connect(f"remsvc://{serve().target}")
    event = await fire(
        trigger(conn_id, "echo one", {"cmd": "echo two >&2", "cmdtyp": 0, "src": "dag"}, "true")
    )
    assert event["state"] == "SUCCESS"
    assert event["error_msg"] is None
    assert event["results"]["1"] == {
        "tid": 1,
        "rc": 0,
        "out": "one\n",
        "err": "",
        "hsh": crc32hex("echo one"),
        "cmd": "echo one",
    }
    assert event["results"]["2"]["err"] == "two\n"
    assert list(event["results"]) == ["1", "2", "3"]


async def test_every_failed_command_is_named(serve, connect):
    conn_id = connect(f"remsvc://{serve().target}")
    event = await fire(trigger(conn_id, "true", "echo gone wrong >&2; exit 3", "true", "exit 4"))
    assert event["state"] == "FAILED"
    assert event["error_msg"] == (
        "command 2 (commands[1]) ended with rc 3: gone wrong; command 4 (commands[3]) ended with rc 4"
    )
    assert [event["results"][tid]["rc"] for tid in "1234"] == [0, 3, 0, 4]


async def test_a_denied_command_ends_the_stream(serve, connect):
    server = serve("[denylist]\n1 = forbidden\n")
    conn_id = connect(f"remsvc://{server.target}")
    event = await fire(trigger(conn_id, "echo fine", "echo forbidden", "echo never"))
    assert event["state"] == "FAILED"
    assert "PERMISSION_DENIED" in event["error_msg"]
    assert "denylist" in event["error_msg"]
    assert "3" not in event["results"]


async def test_token_and_tls(serve, connect, certificates):
    server = serve(
        f"[tls]\nenabled = true\ncert = {certificates.server.certificate}\nkey = {certificates.server.key}\n"
        "[auth]\nairflow = tok-0123456789\n",
        "--host=127.0.0.1",
    )
    extra = {"use_ssl": True, "ca_cert_path": str(certificates.ca), "bearer_token": "tok-0123456789"}
    uri = f"remsvc://{server.target}?extra={json.dumps(extra)}"
    event = await fire(trigger(connect(uri), "echo safe", metadata=[("Authorization", "Bearer wrong")]))
    assert event["results"]["1"]["out"] == "safe\n"
    event = await fire(trigger(connect(uri.replace("tok-", "bad-")), "echo safe"))
    assert "UNAUTHENTICATED: invalid bearer token" in event["error_msg"]
    assert "bad-0123456789" not in event["error_msg"]


async def test_mutual_tls(serve, connect, certificates):
    server = serve(
        f"[tls]\nenabled = true\ncert = {certificates.server.certificate}\nkey = {certificates.server.key}\n"
        f"ca = {certificates.ca}\n",
        "--host=127.0.0.1",
    )
    extra = {"use_ssl": "true", "ca_cert_path": str(certificates.ca)}
    uri = f"remsvc://{server.target}?extra={json.dumps(extra)}"
    event = await fire(trigger(connect(uri), "true", stream_timeout=1.0))
    assert event["state"] != "SUCCESS"
    extra["client_cert_path"] = str(certificates.client.certificate)
    extra["client_key_path"] = str(certificates.client.key)
    event = await fire(trigger(connect(f"remsvc://{server.target}?extra={json.dumps(extra)}"), "true"))
    assert event["state"] == "SUCCESS"


async def test_missing_certificate_file_is_named(connect):
    extra = {"use_ssl": True, "ca_cert_path": "/nowhere/ca.pem"}
    event = await fire(trigger(connect(f"remsvc://127.0.0.1?extra={json.dumps(extra)}"), "true"))
    assert event["state"] == "FAILED"
    assert "/nowhere/ca.pem" in event["error_msg"]


async def test_bad_connections_fail_the_task_with_the_reason(connect):
    event = await fire(trigger(connect("remsvc://127.0.0.1?use_ssl=maybe"), "true"))
    assert event["state"] == "FAILED"
    assert "extra use_ssl is 'maybe'" in event["error_msg"]


async def test_waiting_for_a_free_call_may_be_tried_again(serve, connect, tmp_path: Path):
    """Of those of a connection, which all that runs in one event loop shares, where there is no other one."""
    server = serve("[limits]\nmax_streams = 1\nmax_connections = 1\n")
    conn_id = connect(f"remsvc://{server.target}")
    held = asyncio.create_task(
        fire(trigger(conn_id, f"touch {tmp_path}/1; until [ -e {tmp_path}/go ]; do sleep 0.02; done"))
    )
    await until((tmp_path / "1").exists)
    event = await fire(trigger(conn_id, f"touch {tmp_path}/2", stream_timeout=1.0))
    assert event["state"] == "FAILED"
    assert event["error_msg"] == (
        "stream_timeout of 1 s exceeded before the server took the call: nothing was sent"
    )
    (tmp_path / "go").touch()
    assert (await held)["state"] == "SUCCESS"
    assert not (tmp_path / "2").exists()


async def test_stream_timeout_cancels(serve, connect, tmp_path: Path):
    server = serve()
    mark = tmp_path / "finished"
    started = time.monotonic()
    event = await fire(
        trigger(
            connect(f"remsvc://{server.target}"), "echo done", f"sleep 300; touch {mark}", stream_timeout=5
        )
    )
    assert time.monotonic() - started < DEADLINE
    assert event["state"] == "CANCELLED"
    assert event["error_msg"].startswith("stream_timeout of 5 s exceeded")
    assert "1 of 2 command(s) had been answered" in event["error_msg"]
    assert event["results"]["1"]["out"] == "done\n"
    assert not mark.exists()


async def test_cancelling_ends_the_command(serve, connect, tmp_path: Path):
    server = serve()
    pid_file = tmp_path / "pid"
    running = trigger(
        connect(f"remsvc://{server.target}"),
        f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 300",
    )
    task = asyncio.create_task(fire(running))
    await until(pid_file.exists)
    pid = int(pid_file.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_a_server_that_dies_is_not_asked_again(serve, connect, tmp_path: Path):
    server = serve()
    mark = tmp_path / "running"
    running = trigger(connect(f"remsvc://{server.target}"), "echo one", f"touch {mark}; sleep 300")
    task = asyncio.create_task(fire(running))
    await until(mark.exists)
    server.kill()
    event = await task
    assert event["state"] == "FAILED"
    assert "UNAVAILABLE" in event["error_msg"]
    assert "not retried to prevent duplicate execution" in event["error_msg"]
    assert "(1 of 2 had been answered)" in event["error_msg"]
    assert event["results"]["1"]["out"] == "one\n"


async def test_log_tells_the_story(serve, connect, capsys):
    server = serve("[auth]\nairflow = tok-0123456789\n", "--host=127.0.0.1")
    uri = f'remsvc://{server.target}?extra={{"bearer_token":"tok-0123456789"}}'
    await fire(
        trigger(
            connect(uri),
            r"printf 'one\n\033[38;5;77mgreen\033[0m \000 end\n'",
            "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; done; echo oops >&2; exit 7",
        )
    )
    log = capsys.readouterr().out
    assert f"Running 2 command(s) on {server.target} (plaintext, no TLS, bearer token), within 60 s" in log
    assert "ended with rc 0 after " in log
    assert "  | one\n  | green " in log
    assert "NUL characters" in log
    assert "Command 2: i=0; while" in log
    assert "ended with rc 7 after " in log
    assert "  | line 100\n" in log
    assert "  | line 80\n" not in log
    assert "err:\n  | oops" in log
    assert "\x1b[38;5;77m" not in log
    assert "\0" not in log
    assert "tok-0123456789" not in log


async def test_output_fits_into_airflows_database(serve, connect):
    event = await fire(trigger(connect(f"remsvc://{serve().target}"), r"printf 'a\000b'"))
    assert event["results"]["1"]["out"] == "a\ufffdb"


# ---- arguments, as Airflow stores them


async def test_serialized_arguments_rebuild_it(serve, connect):
    conn_id = connect(f"remsvc://{serve().target}")
    original = trigger(
        conn_id, {"cmd": "echo x", "cmdtyp": 0, "src": "s"}, metadata=[("x-run", "7")], stream_timeout=9
    )
    classpath, arguments = original.serialize()
    assert classpath == "remsvc_provider.triggers.remsvc.RemSvcTrigger"
    assert arguments == {
        "commands": [{"cmd": "echo x", "cmdtyp": 0, "src": "s"}],
        "grpc_conn_id": conn_id,
        "stream_timeout": 9,
        "metadata": [("x-run", "7")],
    }
    rebuilt = RemSvcTrigger(**json.loads(json.dumps(arguments)))
    assert (await fire(rebuilt))["results"]["1"]["out"] == "x\n"


async def test_the_event_in_airflows_own_log_has_no_output(serve, connect):
    async with aclosing(trigger(connect(f"remsvc://{serve().target}"), "echo a lot").run()) as events:
        (event,) = [event async for event in events]
    assert repr(event) == "TriggerEvent<state SUCCESS, 1 result(s)>"
    assert event == TriggerEvent(event.payload)
    assert TriggerEvent(event.payload) == event
    assert event != TriggerEvent({})


@pytest.mark.skipif(
    Version(airflow.__version__) < Version("3.2"),
    reason="Airflow 3.1 cannot say so outside of its own processes",
)
async def test_an_unknown_connection_fails_the_task():
    event = await fire(trigger("remsvc_unknown", "true"))
    assert event["state"] == "FAILED"
    assert "remsvc_unknown" in event["error_msg"]


async def test_a_sealed_token_of_another_key_fails_the_task(connect):
    sealed = Fernet(Fernet.generate_key()).encrypt(b"[]").decode()
    event = await fire(trigger(connect("remsvc://127.0.0.1:1"), "true", sealed_metadata=sealed))
    assert event["state"] == "FAILED"
    assert "fernet_key" in event["error_msg"]


async def test_a_trigger_that_1_0_0_stored_still_runs(scripted, connect):
    server = scripted(lambda requests, _: (answer(request) for request in requests))
    stored = {
        "commands": [{"cmd": "echo hi", "cmdtyp": 0, "cmdusr": None, "note": "1.0.0 did not check keys"}],
        "grpc_conn_id": connect(f"remsvc://{server.target}"),
        "stream_timeout": 60.0,
        "metadata": [["authorization", "Bearer op-token"], ["x-other", "1"]],
    }
    event = await fire(RemSvcTrigger(**stored))
    assert event["state"] == "SUCCESS"
    assert server.metadata[0]["authorization"] == "Bearer op-token"
    assert server.metadata[0]["x-other"] == "1"


async def test_stored_arguments_hold_no_token(scripted, connect):
    server = scripted(lambda requests, _: (answer(request) for request in requests))
    original = trigger(
        connect(f"remsvc://{server.target}"),
        "true",
        metadata=[("Authorization", "Bearer op-token"), ("x-other", "1")],
    )
    arguments = json.dumps(original.serialize()[1])
    assert "op-token" not in arguments
    assert "op-token" not in repr(original)
    rebuilt = RemSvcTrigger(**json.loads(arguments))
    again = RemSvcTrigger(**json.loads(json.dumps(rebuilt.serialize()[1])))
    assert (await fire(again))["state"] == "SUCCESS"
    assert server.metadata[0]["authorization"] == "Bearer op-token"


# ---- against servers that misbehave


async def test_commands_travel_with_number_and_hash(scripted, connect):
    server = scripted(lambda requests, _: (answer(request) for request in requests))
    command = {"cmd": "echo \u00e4", "cmdtyp": 1, "cmdusr": "nobody", "src": "dag/task"}
    assert (await fire(trigger(connect(f"remsvc://{server.target}"), "true", command)))["state"] == "SUCCESS"
    sent = server.commands[1]
    assert (sent.cmd, sent.cmdtyp, sent.cmdusr, sent.src) == ("echo \u00e4", 1, "nobody", "dag/task")
    assert (sent.tid, sent.hsh) == (2, crc32hex("echo \u00e4"))


async def test_all_is_written_while_answers_are_read(scripted, connect):
    def all_first(requests, _):
        for request in reversed(list(requests)):
            yield answer(request, out=str(request.tid))

    conn_id = connect(f"remsvc://{scripted(all_first).target}")
    event = await fire(trigger(conn_id, *(f"echo {n}" for n in range(1, 201))))
    assert event["state"] == "SUCCESS"
    assert {int(tid): result["out"] for tid, result in event["results"].items()} == {
        n: str(n) for n in range(1, 201)
    }


async def test_missing_answers_are_named(scripted, connect):
    server = scripted(lambda requests, _: (answer(request) for request in requests if request.tid % 2))
    event = await fire(trigger(connect(f"remsvc://{server.target}"), "a", "b", "c", "d"))
    assert event["state"] == "FAILED"
    assert "command 2 (commands[1]), command 4 (commands[3])" in event["error_msg"]
    assert list(event["results"]) == ["1", "3"]


@pytest.mark.parametrize("tid", [0, 2, 99, -1])
async def test_an_answer_to_nothing_is_an_error(scripted, connect, tid):
    server = scripted(lambda requests, _: (answer(request, tid=tid) for request in requests))
    event = await fire(trigger(connect(f"remsvc://{server.target}"), "true"))
    assert event["state"] == "FAILED"
    assert str(tid) in event["error_msg"]


@pytest.mark.parametrize(
    "status",
    [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED],
)
async def test_broken_off_after_writing_is_not_retried(scripted, connect, status):
    def break_off(requests, context):
        yield answer(next(requests))
        context.abort(status, "lost it")

    server = scripted(break_off)
    event = await fire(trigger(connect(f"remsvc://{server.target}"), "true", "true"))
    assert event["state"] == "FAILED"
    assert status.name in event["error_msg"]
    assert "not retried to prevent duplicate execution" in event["error_msg"]
    assert server.calls == 1
    assert list(event["results"]) == ["1"]


async def test_server_that_comes_up_late_is_waited_for(scripted, connect, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    servers = []
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://127.0.0.1:{port}"), "true")))
    await until(lambda: "attempt 2 of 3 follows" in capsys.readouterr().out)
    servers.append(scripted(lambda requests, _: (answer(request) for request in requests), port))
    event = await running
    assert event["state"] == "SUCCESS"
    assert servers[0].calls == 1


async def test_server_that_is_down_is_tried_three_times(connect, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{free.getsockname()[1]}"
        event = await fire(trigger(connect(f"remsvc://{target}"), "true"))
    assert event["state"] == "FAILED"
    assert "UNAVAILABLE" in event["error_msg"]
    assert event["error_msg"].endswith("; nothing was sent in 3 attempts")
    log = capsys.readouterr().out
    assert "attempt 2 of 3 follows in 1 s" in log
    assert "attempt 3 of 3 follows in 2 s" in log


async def test_refusals_are_not_retried(scripted, connect):
    def refuse(requests, context):
        next(requests)
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "hash mismatch: command integrity check failed")
        yield

    server = scripted(refuse)
    event = await fire(trigger(connect(f"remsvc://{server.target}"), "true"))
    assert event["state"] == "FAILED"
    assert "INVALID_ARGUMENT: hash mismatch: command integrity check failed" in event["error_msg"]
    assert server.calls == 1


async def test_deadline_travels_to_the_server(scripted, connect):
    left = []

    def silent(requests, context):
        left.append(context.time_remaining())
        for request in requests:
            yield answer(request)

    conn_id = connect(f"remsvc://{scripted(silent).target}")
    assert (await fire(trigger(conn_id, "true", stream_timeout=1234.0)))["state"] == "SUCCESS"
    assert 1100 < left[0] <= 1300  # gRPC rounds up


async def test_cancelling_ends_the_call(scripted, connect):
    reading = threading.Event()

    def hang(requests, _):
        for _request in requests:
            reading.set()
        threading.Event().wait(0.1)
        while not server.ended.wait(0.1):
            pass
        yield from ()

    server = scripted(hang)
    task = asyncio.create_task(fire(trigger(connect(f"remsvc://{server.target}"), "sleep 300")))
    await until(reading.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(server.ended.is_set)


async def test_output_that_is_not_utf8_is_kept_and_said(scripted, connect, capsys):
    # The C++ server sends such bytes raw, which a protobuf string field does not take: by hand.
    def raw(requests, _):
        for request in requests:
            hsh = request.hsh.encode()
            yield (
                b"\x08\x05\x10"
                + bytes([request.tid])
                + b"\x1a\x04ab\xff\n"
                + b"\x2a"
                + bytes([len(hsh)])
                + hsh
            )

    server = scripted(raw)
    event = await fire(trigger(connect(f"remsvc://{server.target}"), "cat picture"))
    result = event["results"]["1"]
    assert (result["rc"], result["out"]) == (5, "ab\ufffd\n")
    assert "not UTF-8" in capsys.readouterr().out


def test_many_triggers_share_a_connection_and_leave_nothing_behind(serve, connect):
    server = serve()
    conn_id = connect(f"remsvc://{server.target}")

    async def run_all() -> list[dict]:
        return await asyncio.gather(*(fire(trigger(conn_id, f"echo {n}")) for n in range(30)))

    descriptors = None
    for _ in range(3):  # three event loops, one after another
        events = in_a_thread(lambda: asyncio.run(run_all()))
        assert [event["results"]["1"]["out"] for event in events] == [f"{n}\n" for n in range(30)]
        count = len(list(Path("/proc/self/fd").iterdir()))
        descriptors = descriptors or count
    assert count <= descriptors + 2
