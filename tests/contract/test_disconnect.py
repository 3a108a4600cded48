"""Clients that go away while their command runs."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest

from .client import Client, refused
from .processes import alive, children, descendants, memory, open_descriptors, threads
from .waiting import wait_until


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module()


@pytest.fixture
def supervisor(server) -> int:
    (pid,) = children(server.process.pid)
    return pid


def running(client: Client, ready: Path, over: str, text: str) -> object:
    """Start ``text``, which creates the file ``ready``."""
    if over == "call":
        call: object = client.start(text)
    else:
        call = client.open_stream()
        call.send(text)
    wait_until(ready.exists, "the command to run")
    return call


@pytest.mark.parametrize("over", ["call", "stream"])
@pytest.mark.parametrize("how", ["cancel", "close"])
def test_the_command_of_a_client_that_disconnects_is_ended(
    server, connect, supervisor: int, tmp_path: Path, over: str, how: str
) -> None:
    """A client that disconnects mid-command: the command is ended and reaped, with its whole tree."""
    ready = tmp_path / "ready"
    text = f"trap '' TERM HUP; setsid sleep 300 & sleep 301 & echo ready >{ready}; wait"
    client = connect(server.target)
    call = running(client, ready, over, text)
    tree = descendants(supervisor)
    assert len(tree) >= 3
    if how == "cancel":
        call.cancel()
    else:
        client.close()
    wait_until(lambda: not children(supervisor), "the command to be ended and reaped")
    assert not any(alive(pid) for pid in tree)


def test_nothing_of_a_stream_runs_after_its_client_disconnected(
    server, connect, supervisor: int, tmp_path: Path
) -> None:
    """A client that disconnects mid-command: what it had sent behind it does not run."""
    ready = tmp_path / "ready"
    client = connect(server.target)
    stream = client.open_stream()
    stream.send(f"echo ready >{ready}; sleep 300")
    stream.send(f": >{tmp_path}/second-ran")
    wait_until(ready.exists, "the command to run")
    client.close()
    wait_until(lambda: not children(supervisor), "the command to be ended")
    connect(server.target).run("sleep 0.1")
    assert not (tmp_path / "second-ran").exists()


def test_a_deadline_of_the_client_ends_the_command(server, connect, supervisor: int, tmp_path: Path) -> None:
    """A call whose deadline passes is a client that is gone: the command is ended and reaped."""
    client = connect(server.target)
    for timeout in (0.5, 2, 8):  # as long as it takes here to start one
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            client.run(f": >{tmp_path}/ran; sleep 300", timeout=timeout)
        if (tmp_path / "ran").exists():
            break
    assert (tmp_path / "ran").exists()
    wait_until(lambda: not children(supervisor), "the command to be ended and reaped")


def test_the_server_logs_it(server, connect, supervisor: int, tmp_path: Path) -> None:
    """Nothing fails silently: the log tells of the command that was ended."""
    client = connect(server.target)
    call = client.start("sleep 300", src="goes-away")
    wait_until(lambda: children(supervisor), "the command to run")
    call.cancel()
    wait_until(lambda: not children(supervisor), "the command to be ended")
    wait_until(lambda: server.log.count("goes-away"), "a log entry")


def test_a_thousand_disconnects_leak_nothing(server, connect, supervisor: int) -> None:
    """nothing leaks: no process, descriptor or task remains after 1,000 such disconnects"""
    batch, batches = 100, 10
    processes = (server.process.pid, supervisor)

    def disconnect_a_batch() -> None:
        client = connect(server.target)
        calls = [client.start("sleep 300") for _ in range(batch // 2)]
        streams = [client.open_stream() for _ in range(batch // 2)]
        for stream in streams:
            stream.send("sleep 300")
        wait_until(lambda: len(children(supervisor)) == batch, f"{batch} commands to run")
        for call in calls[::2]:
            call.cancel()
        client.close()
        for stream in streams:
            stream.half_close()  # lets gRPC's thread that waits for requests end
        wait_until(lambda: not children(supervisor), "the commands to be ended and reaped")

    def count() -> list[int]:
        return [kind(pid) for pid in processes for kind in (open_descriptors, threads)]

    disconnect_a_batch()  # what is made once and kept, such as threads, exists now
    before, memory_before = count(), sum(map(memory, processes))
    for _ in range(batches - 1):
        disconnect_a_batch()
    wait_until(
        lambda: all(now <= then for now, then in zip(count(), before, strict=True)),
        f"descriptors and threads to be {before} again",
    )
    assert sum(map(memory, processes)) - memory_before < 32 * 1024 * 1024
    assert connect(server.target).run("echo fine").out == "fine\n"


def test_a_client_may_go_away_at_any_moment(server, connect, supervisor: int) -> None:
    """nothing leaks: no process remains, whether the command was about to start, starting or running"""
    clients = [connect(server.target) for _ in range(4)]
    for number in range(400):
        client = clients[number % 4]
        if number % 3:
            call = client.start("sleep 300")
        else:
            call = client.open_stream()
            call.send("sleep 300")
        time.sleep(number % 20 / 4000)
        call.cancel()
    clients[0].run("sleep 0.2")
    wait_until(lambda: not children(supervisor), "the commands to be ended and reaped")
