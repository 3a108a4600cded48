"""What many, large and lingering commands do not do to a server."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .client import Client, command
from .processes import alive, children, peak_memory
from .waiting import wait_until

LIMIT = 262_144
MANY = 200


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("[server]\nport = 0\ncmd_timeout_ms = 600000\n")


@pytest.fixture
def supervisor(server) -> int:
    (pid,) = children(server.process.pid)
    return pid


def test_ping_answers_while_many_commands_run(server, connect, supervisor: int) -> None:
    """while 200 commands run, Ping still answers at once"""
    busy, other = connect(server.target), connect(server.target)
    calls = [busy.start("sleep 300") for _ in range(MANY)]
    wait_until(lambda: len(children(supervisor)) == MANY, f"{MANY} commands to run")
    for seq in range(100):
        assert other.ping(seq, timeout=5).seq == seq
    assert other.run("echo also").out == "also\n"
    assert not any(call.done() for call in calls)
    busy.close()
    wait_until(lambda: not children(supervisor), "the commands to be ended")


def test_ping_answers_while_commands_start_and_print(server, connect) -> None:
    """Nothing blocks the event loop"""
    busy, other = connect(server.target), connect(server.target)
    calls = [busy.start("head -c 1000000 /dev/zero") for _ in range(MANY)]
    answered = 0
    while not all(call.done() for call in calls):
        other.ping(timeout=5)
        answered += 1
    assert answered
    assert all(call.result().rc == 0 for call in calls)


@pytest.mark.parametrize("redirect", ["", " >&2"], ids=["out", "err"])
def test_memory_is_bounded_when_a_command_prints_a_gigabyte(
    server, connect, supervisor: int, redirect: str
) -> None:
    """Memory stays bounded when a command prints 1 GB."""
    client: Client = connect(server.target)
    client.run("true")
    processes = (server.process.pid, supervisor)
    before = [peak_memory(pid) for pid in processes]
    result = client.run(f"head -c 1000000000 /dev/zero{redirect}; echo end")
    assert result.rc == 0
    assert (result.err if redirect else result.out).startswith("\0" * LIMIT)
    for pid, peak in zip(processes, before, strict=True):
        assert peak_memory(pid) - peak < 64 * 1024 * 1024


@pytest.mark.parametrize("over", ["call", "stream"])
def test_a_background_process_that_holds_the_output_does_not_delay_the_answer(
    server, connect, over: str
) -> None:
    """A background grandchild that holds standard output open does not delay the answer"""
    client: Client = connect(server.target)
    text = "sleep 300 & echo $!"
    result = client.run(text) if over == "call" else next(client.stream([command(text)]))
    assert (result.rc, result.err) == (0, "")
    pid = int(result.out)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_a_background_process_with_its_own_output_outlives_its_command(
    server, connect, tmp_path: Path
) -> None:
    """Only what a command's time limit, disconnect or cancellation ends is ended."""
    client: Client = connect(server.target)
    text = f"(sleep 0.3; echo done >{tmp_path}/later) >/dev/null 2>&1 &"
    assert client.run(text).rc == 0
    wait_until(lambda: (tmp_path / "later").exists(), "the background process to finish")


def test_a_long_stream_of_commands_is_served(server, connect) -> None:
    """Inside one stream commands run one after another: as many as the client sends."""
    answers = connect(server.target).stream(command("true", tid=tid) for tid in range(1000))
    assert [answer.tid for answer in answers] == list(range(1000))
