"""The trigger over a network that says nothing any more, and what keepalive pings do to other servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import ServerProcess
from tests.faults.flaky_proxy import FlakyProxy
from triggering import fire, results, trigger

from conftest import answer

NOTICED = 50.0
"""Seconds in which a dead connection must have been noticed. It takes 30; with rare pings 330, unless the
server, whose own pings are not answered either, closes the connection after 60 and more."""


@pytest.fixture
def proxy(job_server: ServerProcess) -> Iterator[FlakyProxy]:
    proxy = FlakyProxy((job_server.host, job_server.port))
    yield proxy
    proxy.close()


@pytest.mark.timeout(180)
async def test_a_half_open_connection_is_noticed(proxy: FlakyProxy, connect, capsys, tmp_path: Path):
    """Both ends believe in it, as after a firewall was restarted."""
    go = tmp_path / "go"
    command = f"echo ran >> {tmp_path}/trace; until [ -e {go} ]; do sleep 0.02; done; echo done"
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://127.0.0.1:{proxy.port}"), command)))
    log = ""
    while "started as job" not in log:
        await asyncio.sleep(0.05)
        log += capsys.readouterr().out
    proxy.silence()
    go.touch()
    event = await asyncio.wait_for(running, NOTICED)
    assert results(event)[0]["out"] == "done\n"
    assert (tmp_path / "trace").read_text() == "ran\n"
    assert "Connection lost, the command goes on" in capsys.readouterr().out


async def test_a_server_of_version_1_is_not_pinged_so_often(scripted, connect, monkeypatch):
    """A gRPC server that is not told otherwise breaks the calls of a client that pings often."""
    monkeypatch.setattr("remsvc.client.options.JOBS_KEEPALIVE", 0.5)

    def slow(requests, _):
        for request in requests:
            time.sleep(8)  # room for twice as many pings as are too many
            yield answer(request, out="v1\n")

    server = scripted(slow)
    event = await fire(trigger(connect(f"remsvc://{server.target}"), "a"))
    assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
    assert server.calls == 1
