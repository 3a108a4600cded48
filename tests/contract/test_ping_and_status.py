from __future__ import annotations

import re
import time

import grpc
import pytest

from .client import Client, command, refused
from .commands import COMMANDS
from .waiting import wait_until

STATUS = re.compile(r"state=OK uptime=(\d+)s commands=(\d+)")


def uptime_and_commands(client: Client) -> tuple[int, int]:
    match = STATUS.fullmatch(client.status().msg)
    assert match, client.status().msg
    return int(match[1]), int(match[2])


@pytest.mark.parametrize(
    ("seq", "sent_at", "data"),
    [
        (0, 0, b""),
        (1, 1_700_000_000_000, b"data"),
        (2**31 - 1, 2**63 - 1, bytes(range(256))),
        (-(2**31), -(2**63), b"\0" * 1_000_000),
    ],
    ids=["defaults", "ordinary", "largest", "smallest"],
)
def test_ping_echoes_what_it_is_sent(client: Client, seq: int, sent_at: int, data: bytes) -> None:
    """Ping echoes seq, time, data."""
    pong = client.ping(seq, sent_at, data)
    assert (pong.seq, pong.time, pong.data) == (seq, sent_at, data)


def test_get_status_answers_rc_0_and_a_line(client: Client) -> None:
    """GetStatus returns rc 0 and msg = state=OK uptime=<seconds>s commands=<number run>."""
    status = client.status()
    assert status.rc == 0
    assert STATUS.fullmatch(status.msg)


def test_get_status_tells_the_seconds_since_the_start(client: Client) -> None:
    """uptime=<seconds>s"""
    began, (first, _) = time.monotonic(), uptime_and_commands(client)
    later = wait_until(lambda: (now := uptime_and_commands(client)[0]) > first and now, "uptime to grow")
    assert later - first <= time.monotonic() - began + 1


def test_get_status_counts_the_commands_that_were_run(serve, connect) -> None:
    """commands=<number run>"""
    client = connect(serve("[denylist]\n1 = forbidden\n").target)
    assert uptime_and_commands(client)[1] == 0
    client.run(COMMANDS.echo("one"))
    list(client.stream([command(COMMANDS.exit(1)), command(COMMANDS.echo("three"))]))
    with refused(grpc.StatusCode.PERMISSION_DENIED):
        client.run("forbidden")
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        client.run("echo not run", hsh="00000000")
    assert uptime_and_commands(client)[1] == 3
