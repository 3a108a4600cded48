"""What the server does with a gRPC that one packet ends: ``python -m tests.packaging.affected_grpc``.

Runs in an environment that holds the wheel with its ``server`` extra and, all the same, such a grpcio. It
refuses to start with gRPC's server as its transport. Where it does not know of the fault, it ends with an
error, and durable jobs go on. With its own transport it serves, and the packet does nothing.
Needs no pytest.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from remsvc.client import Client, ConnectionOptions, JobSpec, JobState
from tests.attacks.raw_http2 import END_STREAM, HEADERS, RawPeer

DEADLINE = 30.0
INSTALLED = importlib.metadata.version("grpcio")
UNAFFECTED = "1.83.2"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_refusal(Path(folder))
        check_end(Path(folder))
        check_own_transport(Path(folder))
    print(
        f"with grpcio {INSTALLED}: does not start with transport = grpc; where it does, ends with an error "
        "after one packet; serves with transport = http2"
    )


def check_refusal(folder: Path) -> None:
    config = folder / "server.ini"
    config.write_text("[server]\nport = 0\ntransport = grpc\n")
    for verb, code in (
        (["serve", "--state-dir", str(folder / "refused"), "--config"], 255),
        (["check-config"], 2),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "remsvc", *verb, str(config)],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert ended.returncode == code, ended
        assert f"grpcio {INSTALLED} is installed" in ended.stderr, ended
        assert ended.stdout == "", ended


def check_end(folder: Path) -> None:
    go = folder / "go"
    with (
        server(folder, "grpc") as (process, host, port),
        Client(ConnectionOptions(f"{host}:{port}")) as client,
    ):
        job = client.create_job(
            JobSpec(f"until [ -e {go} ]; do sleep 0.1; done", time_limit=2 * DEADLINE), "one"
        )
        # A call that does not end by itself: gRPC waits for it, which must not keep the process.
        watch = iter(client.watch_job(job.id))
        next(watch)
        send_packet(host, port)
        code = process.wait(DEADLINE)
        del watch
    assert code == 255, code
    log = (folder / "log").read_text()
    assert "CRITICAL remsvc.server nobody can reach the server any more" in log, log
    assert "UnicodeDecodeError" in log, log
    with server(folder, "grpc") as (process, host, port):
        with Client(ConnectionOptions(f"{host}:{port}")) as client:
            assert client.get_job(job.id).state is JobState.RUNNING
            go.touch()
            wait_until(lambda: client.get_job(job.id).ended)
            assert client.get_job(job.id).state is JobState.SUCCEEDED
        process.terminate()
        assert process.wait(DEADLINE) == 0


def check_own_transport(folder: Path) -> None:
    with (
        server(folder, "http2") as (process, host, port),
        Client(ConnectionOptions(f"{host}:{port}")) as client,
    ):
        send_packet(host, port)
        assert client.ping(b"x").data == b"x"
        process.terminate()
        assert process.wait(DEADLINE) == 0


@contextmanager
def server(folder: Path, transport: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A server that takes the installed gRPC for another version."""
    flags = ["--port", "0", "--state-dir", str(folder / "state"), "--transport", transport]
    command = [sys.executable, "-m", "tests.packaging.affected_grpc", "serve", *flags]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), (folder / "log").read_text()
            host, _, port = line.removeprefix("listening on ").strip().rpartition(":")
            yield process, host, int(port)
        finally:
            process.kill()


def serve() -> None:
    """``remsvc``, to which the installed gRPC says that it is another version."""
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: UNAFFECTED if name == "grpcio" else version(name)
    from remsvc.__main__ import main as remsvc

    remsvc()


def send_packet(host: str, port: int) -> None:
    """A call of a method whose name is not UTF-8."""
    with RawPeer(host, port, timeout=DEADLINE) as peer:
        peer.greet()
        peer.call(1, b"/\xa3/x", body=b"")
        for got in peer.frames():
            if got.kind == HEADERS and got.flags & END_STREAM:
                return  # it was answered; else the connection is closed


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


if __name__ == "__main__":
    serve() if sys.argv[1:] else main()
