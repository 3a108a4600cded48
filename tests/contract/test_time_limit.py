"""``cmd_timeout_ms``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .client import Client, command
from .commands import COMMANDS
from .processes import alive
from .waiting import wait_until

TIMED_OUT = "process timed out"


@pytest.fixture(scope="module")
def limited(serve_module):
    """A server that gives each command one second."""
    return serve_module("[server]\nport = 0\ncmd_timeout_ms = 1000\n")


@pytest.fixture
def client_of_limited(limited, connect) -> Client:
    return connect(limited.target)


def test_the_default_limit_is_30_seconds(overlong_command: Any) -> None:
    """Time limit per command (cmd_timeout_ms, default 30000)"""
    result = overlong_command.result(55)
    assert (result.rc, result.err, result.tid) == (1, TIMED_OUT, 30)
    assert result.out == "started" + COMMANDS.line_end


def test_a_command_over_the_limit_is_told(client_of_limited: Client) -> None:
    """rc 1, err is process timed out; out keeps what it printed until then."""
    result = client_of_limited.run("echo out; echo err >&2; sleep 300", tid=8, hsh="")
    assert (result.rc, result.out, result.err, result.tid) == (1, "out\n", TIMED_OUT, 8)


def test_output_without_a_line_end_is_kept(client_of_limited: Client) -> None:
    """out keeps what it printed until then."""
    assert client_of_limited.run("printf partial; sleep 300").out == "partial"


def test_the_whole_process_tree_is_killed(client_of_limited: Client, tmp_path: Path) -> None:
    """the whole process tree is killed: background children, other sessions, orphans"""
    text = f"""
        sleep 301 & echo $! >>{tmp_path}/pids
        setsid sleep 302 & echo $! >>{tmp_path}/pids
        (sleep 303 & echo $! >>{tmp_path}/pids)
        (setsid sh -c 'sleep 304 & echo $! >>{tmp_path}/pids; sleep 305' &)
        trap '' TERM HUP INT
        echo $$ >>{tmp_path}/pids
        while :; do sleep 0.1; done
    """
    assert client_of_limited.run(text).err == TIMED_OUT
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 5
    for pid in pids:
        wait_until(lambda pid=pid: not alive(pid), f"the end of process {pid}")


def test_the_limit_is_for_each_command_of_a_stream(client_of_limited: Client) -> None:
    """Time limit per command: a stream goes on after it, and may last longer than it."""
    texts = ["sleep 0.5; echo 1", "sleep 300", "sleep 0.5; echo 3"]
    answers = list(client_of_limited.stream(command(text, tid=tid) for tid, text in enumerate(texts)))
    assert [(answer.tid, answer.rc, answer.out, answer.err) for answer in answers] == [
        (0, 0, "1\n", ""),
        (1, 1, "", TIMED_OUT),
        (2, 0, "3\n", ""),
    ]


def test_a_busy_command_is_killed_too(client_of_limited: Client) -> None:
    """the whole process tree is killed: also one that prints without end"""
    result = client_of_limited.run("yes")
    assert (result.rc, result.err) == (1, TIMED_OUT)
    assert result.out.startswith("y\ny\n")
