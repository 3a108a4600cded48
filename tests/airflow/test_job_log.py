"""What a person sees in a task's log while its commands run as durable jobs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from triggering import fire, restored, results, trigger, until

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2


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
        found = re.findall(rf"{re.escape(prefix)} \| (.*)", plain)
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
        "Command 1: echo one\nstarted as job ",
        "\n1 out | one",
        "\nCommand 1 ended with rc 0 after ",
        "\n2 err | oops",
        "Command 2 ended with rc 7 after ",
        "command 2 (commands[1]) ended with rc 7: oops",
    ):
        assert words in log.text
    assert "tok-0123456789" not in log.text


async def test_few_calls(conn_id, log):
    await fire(trigger(conn_id, "seq 1000"))
    assert log.lines("1 out") == [str(n) for n in range(1, 1001)]
    assert log.text.count("[remsvc_provider.") < 10


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


async def test_a_flood_is_limited_and_its_end_shown(conn_id, log):
    command = "echo begin; yes 'all work and no play' | head -n 2000000; echo the end"
    event = await fire(trigger(conn_id, command))
    assert results(event)[0]["out"].startswith("begin\nall work")
    lines = log.lines("1 out")
    assert (lines[0], lines[-1]) == ("begin", "the end")
    assert len("\n".join(lines)) < 1_000_000
    note = next(line for line in lines if line.startswith("... "))
    assert re.fullmatch(r"\.\.\. \d+ bytes are left out here; all of it: remsvc jobs logs [0-9a-f]+", note)
    left_out = sum(int(line.split()[1]) for line in lines if line.startswith("... "))
    shown = sum(len(line) + 1 for line in lines if not line.startswith("... "))
    written = len("begin\n") + 21 * 2_000_000 + len("the end\n")
    assert left_out > 40_000_000
    assert 0 <= left_out + shown - written <= 10  # a line that is broken off gets an end of its own


async def test_a_flood_does_not_hide_the_other_stream(conn_id, log):
    command = "yes | head -c 20000000 & for n in 1 2 3; do echo $n >&2; sleep 0.2; done; wait; echo done >&2"
    event = await fire(trigger(conn_id, command))
    assert results(event)[0]["err"] == "1\n2\n3\ndone\n"


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
