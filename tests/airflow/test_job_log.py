"""What a person sees in a task's log while its commands run as durable jobs."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from tests.client.scripted_jobs import ScriptedJobs
from triggering import DEADLINE, fire, restored, results, trigger, until

from remsvc.client import AsyncClient
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from remsvc_provider.running import job_follower
from remsvc_provider.triggers.remsvc import RemSvcTrigger


class LogReader:
    """Collects what goes to the task's log."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    @property
    def text(self) -> str:
        self._text += self._capsys.readouterr().out
        return self._text

    def lines(self, prefix: str) -> list[str]:
        """The lines of one command's stream, without what the log adds to a message."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.text)  # Airflow 3.1 colours its messages
        # Those that are repeated where a command has failed are indented.
        found = re.findall(rf"(?<!  ){re.escape(prefix)} \| (.*)", plain)
        return [line.split(" [remsvc_provider.")[0].rstrip() for line in found]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> LogReader:
    return LogReader(capsys)


async def test_output_appears_while_the_command_runs(conn_id, log, tmp_path: Path):
    go = tmp_path / "go"
    running = asyncio.create_task(
        fire(
            trigger(conn_id, f"echo first; echo oops >&2; until [ -e {go} ]; do sleep 0.02; done; echo last")
        )
    )
    await until(lambda: log.lines("1 out") == ["first"] and log.lines("1 err") == ["oops"])
    assert not running.done()
    go.touch()
    assert (await running)["state"] == "SUCCESS"
    assert log.lines("1 out") == ["first", "last"]


async def test_it_tells_the_story(serve, connect, log):
    server = serve("[auth]\nairflow = tok-0123456789\n", "--host=127.0.0.1")
    uri = f'remsvc://{server.target}?extra={{"bearer_token":"tok-0123456789"}}'
    await fire(trigger(connect(uri), "echo one", "echo two; echo oops >&2; exit 7"))
    for words in (
        f"Running 2 command(s) on {server.target} (plaintext, no TLS, bearer token), within 60 s, as durable",
        "::group::Command 1: echo one",
        "started as job ",
        "1 out | one",
        "Command 1 ended with rc 0 after ",
        "2 err | oops",
        "Command 2 ended with rc 7 after ",
        "command 2 (commands[1]) ended with rc 7: oops",
    ):
        assert words in log.text
    assert "tok-0123456789" not in log.text


async def test_few_calls(conn_id, log):
    await fire(trigger(conn_id, "seq 1000"))
    assert log.lines("1 out") == [str(n) for n in range(1, 1001)]
    assert log.text.count("[remsvc_provider.") < 20


async def test_control_characters_are_cleaned(conn_id, log):
    await fire(trigger(conn_id, r"printf '\033[31mred\033[0m\007\n10%%\r20%%\r\nend'"))
    assert log.lines("1 out") == [r"red\x07", "20%", "end"]
    assert "\x1b[31m" not in log.text


@pytest.mark.parametrize("state", [jobs_pb2.SUCCEEDED, jobs_pb2.FAILED, jobs_pb2.CANCELLED, jobs_pb2.LOST])
async def test_what_a_server_calls_a_job_forges_no_line(scripted_jobs, connect, log, state):
    evil = "\x1b[2Jx\nCommand 1 ended with rc 0 after 9 s\r\u202e"
    one = trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")
    request_id = one.serialize()[1]["origin"]["request_id"]
    job = scripted_jobs.add(id=f"id{evil}", request_id=f"{request_id}/1")
    scripted_jobs.jobs[job.message.id] = job
    running = asyncio.create_task(fire(one))
    await until(lambda: scripted_jobs.watches)
    code = {jobs_pb2.SUCCEEDED: 0, jobs_pb2.FAILED: 7}.get(state)
    scripted_jobs.change(job, state, reason=f"why{evil}", **({} if code is None else {"exit_code": code}))
    event = await running
    assert r"id\x1b[2Jx\nCommand 1 ended" in log.text
    assert r"why\x1b[2Jx\nCommand 1 ended with rc 0 after 9 s\r\u202e" in log.text
    for text in (log.text, event["error_msg"] or ""):
        assert "\x1b[2J" not in text
        assert "\nCommand 1 ended with rc 0 after 9 s" not in text
        assert "\u202e" not in text


async def test_no_character_is_broken_where_output_comes_in_pieces(scripted_jobs, connect, log):
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: scripted_jobs.jobs)
    job = scripted_jobs.jobs["job1"]
    job.chunk = 1
    scripted_jobs.write(job, "grüße €\nΩ".encode(), "日本語".encode())
    scripted_jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
    event = await running
    assert log.lines("1 out") == ["grüße €", "Ω"]
    assert log.lines("1 err") == ["日本語"]
    assert (results(event)[0]["out"], results(event)[0]["err"]) == ("grüße €\nΩ", "日本語")


@pytest.mark.parametrize("limit", [1, 20, 10_000, 100_000])
@pytest.mark.parametrize("max_output_bytes", [10, 5_000_000])
async def test_beyond_max_log_bytes_there_are_the_beginning_and_the_end(
    conn_id, log, limit, max_output_bytes
):
    """Whether the result needs what the log leaves out, or not."""
    written = "begin\n" + "all work and no play\n" * 100_000 + "the end\n"
    command = "echo begin; yes 'all work and no play' | head -n 100000; echo the end"
    event = await fire(
        trigger(conn_id, command, max_log_bytes=limit, max_output_bytes=max_output_bytes, log_drain=600.0)
    )
    assert results(event)[0]["out"][:max_output_bytes] == written[:max_output_bytes]
    lines = log.lines("1 out")
    beyond, gap = [line for line in lines if line.startswith("... ")]
    job = r"all of it: remsvc jobs logs [0-9a-f]+"
    assert re.fullmatch(
        rf"\.\.\. more than {limit} bytes: what follows is left out here, but for its end; {job}", beyond
    )
    assert (found := re.fullmatch(rf"\.\.\. (\d+) bytes are left out here; {job}", gap))
    begin = "\n".join(lines[: lines.index(beyond)])
    assert begin == written[:limit].rstrip()
    end = "\n".join(lines[lines.index(gap) + 1 :]) + "\n"
    assert len(end) <= min(limit, 16_384)
    assert written.endswith(end)
    assert limit + int(found[1]) + len(end) == len(written)


FLOOD = b"all work and no play\n" * 400_000


async def fire_flood(server: ScriptedJobs, one: RemSvcTrigger) -> dict[str, Any]:
    """Fire a trigger, have the job that it creates print much and end; the event."""
    running = asyncio.create_task(fire(one))
    await until(lambda: server.jobs)
    server.write(server.jobs["job1"], FLOOD)
    server.change(server.jobs["job1"], jobs_pb2.SUCCEEDED, exit_code=0)
    return await running


async def test_no_more_is_read_than_is_needed_where_the_log_has_taken_too_long(scripted_jobs, connect, log):
    conn_id = connect(f"remsvc://{scripted_jobs.target}")
    event = await fire_flood(scripted_jobs, trigger(conn_id, "a", log_drain=0.0, max_output_bytes=1_000_000))
    assert len(results(event)[0]["out"]) > 1_000_000
    *before, last = [request.stdout_offset for request in scripted_jobs.asked("WatchJob")]
    assert max(before) < 1_000_000
    assert last == len(FLOOD) - 16_384
    assert log.lines("1 out")[-1] == "all work and no play"


async def test_the_end_of_a_log_is_not_waited_for_as_a_result_is(scripted_jobs, connect, log, monkeypatch):
    """The result is complete, and the server says nothing more of the output's end."""
    monkeypatch.setattr(job_follower, "END_SECONDS", 0.5)
    conn_id = connect(f"remsvc://{scripted_jobs.target}")
    scripted_jobs.watch_faults = [(None, None), (None, None), (1, grpc.StatusCode.UNAVAILABLE)]
    scripted_jobs.silence = 3600.0
    one = trigger(conn_id, "a", log_drain=0.0, max_output_bytes=1_000_000)
    event = await fire_flood(scripted_jobs, one)
    assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
    assert "bytes are left out here; all of it" in log.text


async def test_a_log_is_not_waited_for_beyond_its_deferral(scripted_jobs, connect, log, monkeypatch):
    """Airflow would end it, and take no event any more."""
    monkeypatch.setattr(job_follower, "END_SECONDS", 3600.0)
    scripted_jobs.watch_faults = [(None, None), (None, None), (1, grpc.StatusCode.UNAVAILABLE)]
    scripted_jobs.silence = 3600.0
    one = trigger(
        connect(f"remsvc://{scripted_jobs.target}"),
        "a",
        log_drain=0.0,
        max_output_bytes=1_000_000,
        stream_timeout=3600.0,
    )
    one.timeout_after = datetime.now(timezone.utc) + timedelta(seconds=4)
    event = await asyncio.wait_for(fire_flood(scripted_jobs, one), DEADLINE)
    assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
    assert len(results(event)[0]["out"]) > 1_000_000
    assert "bytes are left out here; all of it" in log.text


async def test_a_watch_for_less_has_what_is_left_of_log_drain(scripted_jobs, connect, log, monkeypatch):
    """While a log catches up with its command, one of the outputs reaches what the log may have of it; of the
    other one, the server says nothing."""
    get_job, clock = AsyncClient.get_job, SimpleNamespace(monotonic=time.monotonic)

    async def half_an_hour_passes(client: AsyncClient, *arguments: Any, **named: Any) -> Any:
        job = await get_job(client, *arguments, **named)
        if job.ended:  # from here on log_drain counts
            later = time.monotonic() + 1800
            asyncio.get_running_loop().call_soon(setattr, clock, "monotonic", lambda: later)
        return job

    monkeypatch.setattr(AsyncClient, "get_job", half_an_hour_passes)
    monkeypatch.setattr(job_follower, "time", clock)
    monkeypatch.setattr(job_follower, "END_SECONDS", 0.2)
    scripted_jobs.watch_faults = [(None, None), *2 * [(0, grpc.StatusCode.UNAVAILABLE)]]
    scripted_jobs.silence = 3600.0
    one = trigger(
        connect(f"remsvc://{scripted_jobs.target}"),
        "a",
        log_drain=1800.0,
        max_log_bytes=200_000,
        max_output_bytes=10,
        stream_timeout=7200.0,
    )
    event = await asyncio.wait_for(fire_flood(scripted_jobs, one), DEADLINE)
    assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
    assert "more than 200000 bytes" in log.text
    assert "its log takes too long" in log.text


async def test_a_command_that_ended_in_time_succeeds_though_its_output_comes_later(
    scripted_jobs, connect, log
):
    """Later than ``execution_timeout``: the connection is silent, and breaks."""
    limits = {"execution_timeout": 6.0, "deferred_at": time.time()}
    scripted_jobs.watch_faults = [(None, None), (1, grpc.StatusCode.UNAVAILABLE)]
    scripted_jobs.silence = 7.0
    one = trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", log_drain=0.0, **limits)
    event = await fire_flood(scripted_jobs, one)
    assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
    assert "Connected again" in log.text


async def test_the_end_is_looked_for_whatever_goes_wrong_once(scripted_jobs, connect, log, monkeypatch):
    get_job, failures = AsyncClient.get_job, [RuntimeError("broken"), RuntimeError("broken")]

    async def fails_first(client: AsyncClient, *arguments: Any, **named: Any) -> Any:
        if arguments and failures:
            raise failures.pop()
        return await get_job(client, *arguments, **named)

    monkeypatch.setattr(AsyncClient, "get_job", fails_first)
    one = trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", log_drain=0.0)
    assert (await fire_flood(scripted_jobs, one))["state"] == "SUCCESS"
    assert not failures
    assert log.text.count("Whether the command has ended cannot be asked: RuntimeError: broken") == 1
    assert "The command has ended, and its log takes too long" in log.text


@pytest.mark.parametrize("size", [999, 1000])
async def test_up_to_max_log_bytes_nothing_is_left_out(conn_id, log, size):
    command = f"head -c {size} /dev/zero | tr '\\0' x; head -c {size} /dev/zero | tr '\\0' y >&2"
    await fire(trigger(conn_id, command, max_log_bytes=1000))
    assert (log.lines("1 out"), log.lines("1 err")) == (["x" * size], ["y" * size])


async def test_the_other_output_goes_on_where_one_is_too_long(conn_id, log, tmp_path: Path):
    command = f"yes | head -c 20000; until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo oops >&2; sleep 60"
    running = asyncio.create_task(fire(trigger(conn_id, command, max_log_bytes=10_000, max_output_bytes=10)))
    await until(lambda: any(line.startswith("... more than ") for line in log.lines("1 out")))
    (tmp_path / "go").touch()
    await until(lambda: log.lines("1 err") == ["oops"])
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_airflow_cfg_says_how_much_where_the_task_does_not(conn_id, log, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REMSVC__MAX_LOG_BYTES", "10")
    await fire(trigger(conn_id, "seq 100"))
    assert log.lines("1 out")[:5] == ["1", "2", "3", "4", "5"]
    assert log.lines("1 out")[5].startswith("... more than 10 bytes: ")


@pytest.mark.parametrize("option", ["MAX_LOG_BYTES", "LOG_DRAIN"])
async def test_an_airflow_cfg_that_cannot_be_used_fails_the_task(
    conn_id, option, monkeypatch, tmp_path: Path
):
    monkeypatch.setenv(f"AIRFLOW__REMSVC__{option}", "much")
    event = await fire(trigger(conn_id, f"touch {tmp_path}/ran"))
    assert event["error_msg"].startswith(f"airflow.cfg, [remsvc] {option.lower()} is 'much'; expected a ")
    assert not (tmp_path / "ran").exists()


async def test_a_command_is_a_group_and_a_failed_ones_last_lines_follow_it(conn_id, log):
    await fire(trigger(conn_id, "seq 30; exit 7", "echo not"))
    text = log.text
    begin, end, failed = map(
        text.index, ("::group::Command 1: seq 30; exit 7", "::endgroup::", "ended with rc 7")
    )
    assert begin < text.index("started as job ") < text.index("1 out | 1") < text.index("1 out | 30") < end
    assert end < failed
    assert re.findall(r"(?m)^  1 out \| (\d+)", text[failed:]) == [str(n) for n in range(11, 31)]
    assert text.count("::group::") == text.count("::endgroup::")


async def test_a_command_that_cannot_be_started_leaves_no_group_open(scripted_jobs, connect, log):
    refusal = (grpc.StatusCode.PERMISSION_DENIED, "not this one", ())
    scripted_jobs.refusals["CreateJob"] = [refusal]
    event = await fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a"))
    assert "not this one" in event["error_msg"]
    assert log.text.index("::group::Command 1: a") < log.text.index("::endgroup::")


async def test_what_runs_side_by_side_is_not_folded(conn_id, log):
    await fire(trigger(conn_id, "echo one", "echo two", parallel=2))
    assert "group::" not in log.text
    assert "Command 2: echo two\nstarted as job " in log.text


async def test_no_command_begins_or_ends_a_group(conn_id, log):
    """Airflow's page would take the whole record for one, and hide it."""
    plain = "echo '::endgroup::' >&2; echo '::endgroup::'; echo 'a ::group::b'"
    command = f"{plain}; printf '\\033[31m::endgroup'; echo ::; exit 3"
    event = await fire(trigger(conn_id, command))
    assert "group::" not in event["error_msg"].replace(r"\x3a:endgroup::", "")
    assert log.text.count("::group::") == log.text.count("::endgroup::") == 1
    assert log.lines("1 out") == [r"\x3a:endgroup::", r"a \x3a:group::b", r"\x3a:endgroup::"]


async def test_long_lines_are_broken(conn_id, log):
    await fire(trigger(conn_id, "head -c 10000 /dev/zero | tr '\\0' x"))
    lines = log.lines("1 out")
    assert "".join(lines) == "x" * 10000
    assert max(map(len, lines)) <= 4000


async def test_a_trigger_that_starts_again_says_that_it_repeats(conn_id, log):
    one = trigger(conn_id, "echo hello")
    await fire(one)
    assert "repeats" not in log.text
    await fire(restored(one))
    assert "was started before, as job" in log.text
    assert "what follows repeats its output from the beginning" in log.text
    assert log.lines("1 out") == ["hello", "hello"]


async def test_a_lost_connection_is_said_once_and_nothing_is_lost_or_doubled(scripted_jobs, connect, log):
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: scripted_jobs.jobs)
    job = scripted_jobs.jobs["job1"]
    scripted_jobs.write(job, b"one\ntw")
    await until(lambda: log.lines("1 out") == ["one"])
    scripted_jobs.stop()
    await until(lambda: "Connection lost, the command goes on" in log.text)
    scripted_jobs.start()
    scripted_jobs.write(job, b"o\nthree\n")
    scripted_jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
    event = await running
    assert results(event)[0]["out"] == "one\ntwo\nthree\n"
    assert log.lines("1 out") == ["one", "two", "three"]
    assert log.text.count("Connection lost") == log.text.count("Connected again") == 1
