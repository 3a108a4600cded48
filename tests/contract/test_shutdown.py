"""How a server ends, or does not begin."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import grpc
import pytest

from tests.attacks.raw_http2 import DATA, HEADERS, RawPeer, message

from .client import Client, command, refused
from .processes import alive, children, descendants
from .waiting import wait_until

GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What a call gets from a server that shuts down: CANCELLED where it was sent before the client had read
that the server goes away. gRPC itself answers then; no handler sees the call."""

PATIENT = "[server]\nport = 0\nshutdown_grace_ms = 60000\n"


def until_file(path: Path, then: str = "echo finished") -> str:
    """A command that says that it runs, and ends when ``path`` exists."""
    return f": >{path}.runs; until [ -e {path} ]; do sleep 0.02; done; {then}"


def wait_until_running(path: Path) -> None:
    wait_until(lambda: Path(f"{path}.runs").exists(), "the command to run")


def stops_accepting(connect, target: str) -> None:
    """Wait until the server refuses new connections."""

    def refuses() -> bool:
        client: Client = connect(target)
        try:
            client.ping(timeout=5)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            client.close()
        return False

    wait_until(refuses, "the server to stop accepting")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_exit_code_0(serve, connect, number: signal.Signals) -> None:
    """SIGTERM: ... exit 0."""
    server = serve(PATIENT)
    client = connect(server.target)
    client.run("true")
    stream = client.open_stream()  # an idle stream is nothing that runs
    stream.send("true")
    next(stream)
    family = descendants(server.process.pid)
    assert family
    server.process.send_signal(number)
    assert server.process.wait(30) == 0
    stream.cancel()
    for pid in family:
        wait_until(lambda pid=pid: not alive(pid), f"the end of process {pid}")


def test_what_runs_may_finish(serve, connect, tmp_path: Path) -> None:
    """SIGTERM: stop accepting, let what runs finish for a grace period, exit 0."""
    server = serve(PATIENT)
    client = connect(server.target)
    call, stream = client.start(until_file(tmp_path / "one")), client.open_stream()
    stream.send(until_file(tmp_path / "two"))
    for name in ("one", "two"):
        wait_until_running(tmp_path / name)
    server.process.terminate()
    stops_accepting(connect, server.target)
    assert not call.done()
    for name in ("one", "two"):
        (tmp_path / name).touch()
    assert call.result(30).out == "finished\n"
    assert next(stream).out == "finished\n"
    stream.half_close()
    assert server.process.wait(30) == 0


def test_nothing_new_runs_once_it_shuts_down(serve, connect, tmp_path: Path) -> None:
    """SIGTERM: stop accepting: neither calls on open connections nor the next commands of open streams"""
    server = serve(PATIENT)
    client = connect(server.target)
    stream = client.open_stream()
    stream.send(until_file(tmp_path / "first"), tid=1)
    stream.send(f": >{tmp_path}/second-ran", tid=2)
    wait_until_running(tmp_path / "first")
    server.process.terminate()
    stops_accepting(connect, server.target)
    with refused(GONE):
        client.run(f": >{tmp_path}/call-ran")
    (tmp_path / "first").touch()
    assert next(stream).tid == 1
    with refused(grpc.StatusCode.UNAVAILABLE):
        next(stream)
    stream.cancel()
    assert server.process.wait(30) == 0
    assert not (tmp_path / "second-ran").exists()
    assert not (tmp_path / "call-ran").exists()


def test_a_call_that_crosses_the_shutdown_is_refused_as_well(serve, connect, tmp_path: Path) -> None:
    """SIGTERM: stop accepting: also from a client that has not read yet that it should go away"""
    server = serve(PATIENT)
    with RawPeer("127.0.0.1", server.port) as peer:
        peer.greet()
        for stream, cmd in ((1, until_file(tmp_path / "first")), (3, f": >{tmp_path}/second-ran")):
            if stream == 3:
                wait_until_running(tmp_path / "first")
                server.process.terminate()
                stops_accepting(connect, server.target)
            peer.call(stream, "/RS.RemSvc/RemCmd", body=message(command(cmd).SerializeToString()))
        frames = peer.frames()
        end = next(frame for frame in frames if frame.kind == HEADERS and frame.stream == 3)
        assert any(b"grpc-status: %d\n" % status.value[0] in end.text for status in GONE)
        (tmp_path / "first").touch()
        answer = next(frame for frame in frames if frame.kind == DATA and frame.stream == 1)
        assert b"finished" in answer.payload
    assert server.process.wait(30) == 0
    assert not (tmp_path / "second-ran").exists()


def test_a_log_that_nobody_reads_does_not_hold_it_up(serve, connect, tmp_path: Path) -> None:
    """SIGTERM: ... exit 0: also where standard error is a pipe that is full"""
    fifo = tmp_path / "stderr"
    os.mkfifo(fifo)
    unread = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        server = serve(wrapper=("sh", "-c", f'exec "$@" 2>{fifo}', "sh"))
        client = connect(server.target)
        answers = client.stream(command("true", src="x" * 900) for _ in range(200))
        assert len(list(answers)) == 200
        assert client.ping(seq=1).seq == 1
        server.process.terminate()
        assert server.process.wait(30) == 0
    finally:
        os.close(unread)


def test_what_outlasts_the_grace_period_is_ended(serve, connect, tmp_path: Path) -> None:
    """let what runs finish for a grace period, exit 0"""
    server = serve("[server]\nport = 0\nshutdown_grace_ms = 200\n")
    call = connect(server.target).start(f"trap '' TERM; {until_file(tmp_path / 'never')}")
    wait_until_running(tmp_path / "never")
    family = descendants(server.process.pid)
    server.process.terminate()
    assert server.process.wait(30) == 0
    with pytest.raises(grpc.RpcError):
        call.result(30)
    for pid in family:
        wait_until(lambda pid=pid: not alive(pid), f"the end of process {pid}")


def test_a_killed_server_leaves_nothing_behind(serve, connect, tmp_path: Path) -> None:
    """Version 1 commands do not outlive their server, however it ends."""
    server = serve()
    call = connect(server.target).start(f"setsid sleep 300 & {until_file(tmp_path / 'never')}")
    wait_until_running(tmp_path / "never")
    family = descendants(server.process.pid)
    assert len(family) >= 3
    server.kill()
    with refused(grpc.StatusCode.UNAVAILABLE):
        call.result(30)
    for pid in family:
        wait_until(lambda pid=pid: not alive(pid), f"the end of process {pid}")


def test_a_killed_supervisor_is_no_silent_failure(serve, connect, tmp_path: Path) -> None:
    """Nothing fails silently: its commands get an error; the server recovers, or ends with an error."""
    server = serve()
    client = connect(server.target)
    call = client.start(until_file(tmp_path / "never"))
    wait_until_running(tmp_path / "never")
    (supervisor,) = children(server.process.pid)
    family = descendants(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    with pytest.raises(grpc.RpcError):
        call.result(30)
    for pid in family:
        os.kill(pid, signal.SIGKILL) if alive(pid) else None

    def recovered_or_ended() -> bool:
        if server.process.poll() is not None:
            return True
        try:
            return client.run("echo again").out == "again\n"
        except grpc.RpcError:
            return False

    wait_until(recovered_or_ended, "the server to recover or to end")
    if (code := server.process.poll()) is not None:
        assert code == 255
        assert server.log


def test_a_port_in_use_is_exit_code_255(remsvc, tmp_path: Path) -> None:
    """Failures of the tool itself exit 255 with one clear line on standard error"""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = remsvc("serve", "--state-dir", str(tmp_path), "--port", str(port))
    assert result.returncode == 255
    assert f"127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr
    assert "listening" not in result.stdout


def test_two_servers_do_not_share_a_port(serve, remsvc, tmp_path: Path) -> None:
    """A port in use is exit code 255: also where the other one is a server of ours."""
    first = serve()
    result = remsvc("serve", "--state-dir", str(tmp_path / "other"), "--port", str(first.port))
    assert result.returncode == 255
    assert str(first.port) in result.stderr


def test_an_address_that_is_not_ours_is_exit_code_255(remsvc, tmp_path: Path) -> None:
    """Failures of the tool itself exit 255 with one clear line on standard error"""
    result = remsvc("serve", "--state-dir", str(tmp_path), "--host", "192.0.2.1", "--port", "0")
    assert result.returncode == 255
    assert "192.0.2.1" in result.stderr
    assert "Traceback" not in result.stderr
