"""Which transport carries the calls, and what each of them does in its own way."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from remsvc.client import AsyncClient, Client, ConnectionOptions
from remsvc.client.metadata import call_metadata
from remsvc.command import Command
from remsvc.errors import (
    ConfigurationError,
    DeadlineExceededError,
    ProtocolError,
    ServerError,
    UnavailableError,
)
from remsvc_proto import RemSvc_pb2
from tests.conftest import Serve

from .conftest import DEADLINE, Connect
from .scripted_server import ScriptedServer, answer, command, echo, succeed

Scripted = Callable[..., ScriptedServer]


def without_ngh2(script: str) -> str:
    """What a program prints that runs where ngh2 is not installed."""
    hide = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'ngh2': raise ModuleNotFoundError(name=name)\n"
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'ngh2' else real(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", hide + script], capture_output=True, text=True, timeout=50, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


async def test_http2_is_chosen_where_it_is_installed(transport: str) -> None:
    options = ConnectionOptions("127.0.0.1:1")
    async with AsyncClient(options) as automatic:
        assert automatic.transport == "http2"
    with Client(options) as automatic_too:
        assert automatic_too.transport == "http2"
    with Client(ConnectionOptions("127.0.0.1:1", transport=transport)) as chosen:
        assert chosen.transport == transport


def test_grpc_is_chosen_where_http2_is_not_installed() -> None:
    script = (
        "from remsvc.client import Client, ConnectionOptions\n"
        "with Client(ConnectionOptions('127.0.0.1:1')) as client: print(client.transport)\n"
        "try: Client(ConnectionOptions('127.0.0.1:1', transport='http2')).ping()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    chosen, refused = without_ngh2(script).splitlines()
    assert chosen == "grpc"
    assert refused.startswith("ConfigurationError transport 'http2'")
    assert "[http2]" in refused


def test_a_transport_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="transport 'carrier pigeon': expected auto, http2 or grpc"):
        Client(ConnectionOptions("127.0.0.1:1", transport="carrier pigeon")).ping()


@pytest.mark.parametrize(("kind", "also"), [("Client", ["asyncio", "ssl"]), ("AsyncClient", [])])
def test_http2_loads_nothing_of_grpc(scripted: Scripted, kind: str, also: list[str]) -> None:
    target = scripted(stream=succeed).target
    script = f"""
import sys
from remsvc.client import {kind}, ConnectionOptions
from remsvc.command import Command
options = ConnectionOptions({target!r}, transport="http2")
async def asynchronous():
    async with {kind}(options) as client:
        return [result.tid async for result in client.run_many([Command("true")])]
def blocking():
    with {kind}(options) as client:
        return [result.tid for result in client.run_many([Command("true")])]
if {kind!r} == "AsyncClient":
    import asyncio
    print(asyncio.run(asynchronous()))
else:
    print(blocking())
print([name for name in ("grpc", *{also!r}) if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert run.stdout.splitlines() == ["[1]", "[]"], run.stderr


def test_the_servers_transport_is_told(scripted: Scripted, connect: Connect) -> None:
    said: list[tuple[str, str]] = []

    def status(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata(said)
        return RemSvc_pb2.StatusMsg(rc=0, msg="fine").SerializeToString()

    with connect(ConnectionOptions(scripted(status=status).target)) as client:
        assert client.status().transport == ""
        said.append(("remsvc-transport", "http2"))
        assert client.status().transport == "http2"
        said[0] = ("remsvc-transport", "pigeon")
        assert client.status().transport == ""


def test_controls_in_a_status_are_escaped(scripted: Scripted, connect: Connect) -> None:
    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.INTERNAL, "a\r\n\x1b[2Jb\u202ec ü")

    with (
        connect(ConnectionOptions(scripted(run=run).target)) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.run(Command("true"))
    assert caught.value.details == r"a\r\n\x1b[2Jb\u202ec ü"


def test_answers_of_any_size_arrive(scripted: Scripted, connect: Connect) -> None:
    sizes = [0, 1, 16_000, 32_763, 32_764, 65_530, 65_531, 70_000, 1_000_000, 20_000_000]

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for size, request in zip(sizes, requests, strict=True):
            yield answer(tid=command(request).tid, out="x" * size)

    with connect(ConnectionOptions(scripted(stream=stream, ping=echo).target)) as client:
        for _ in range(3):  # over the same connection
            results = client.run_many([Command("true")] * len(sizes))
            assert [len(result.out) for result in results] == sizes
        for size in sizes[:-1]:
            assert len(client.ping(bytes(size)).data) == size


def test_unread_answers_of_a_call_do_not_stop_the_others(scripted: Scripted, connect: Connect) -> None:
    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        first = command(next(requests)).tid
        yield answer(tid=first)
        while True:
            yield answer(tid=2, out="x" * 100_000)

    with connect(ConnectionOptions(scripted(stream=stream).target)) as client:
        unread = [client.run_many([Command("true")] * 2) for _ in range(4)]
        for results in unread:
            assert next(results).tid == 1
        for _ in range(50):
            client.ping(bytes(100_000))
        for results in unread:
            results.close()  # type: ignore[attr-defined]


def test_threads_share_a_blocking_client(scripted: Scripted, transport: str) -> None:
    options = ConnectionOptions(scripted(stream=succeed).target, transport=transport)
    with Client(options) as client, ThreadPoolExecutor(8) as threads:

        def work(number: int) -> bool:
            data = bytes([number]) * 50_000
            results = list(client.run_many([Command(f"x{number}" * 1000)] * 20))
            return client.ping(data).data == data and all(
                result.out == f"x{number}" * 1000 for result in results
            )

        assert all(threads.map(work, range(40)))


def test_a_blocking_client_that_is_closed_elsewhere_stops_waiting(scripted: Scripted, transport: str) -> None:
    started, over = threading.Event(), threading.Event()

    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        started.set()
        over.wait(DEADLINE)
        return answer()

    client = Client(ConnectionOptions(scripted(run=run).target, transport=transport))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(client.run, Command("true"))
        assert started.wait(DEADLINE)
        client.close()
        assert running.exception(DEADLINE) is not None
        over.set()


def test_a_caller_who_is_busy_with_an_answer_keeps_his_connection() -> None:
    # The server asks after 40 s of silence whether its client is there. This one asks at once.
    from tests.attacks.raw_http2 import ACK, DATA, END_HEADERS, HEADERS, PING, SETTINGS, frame, header_block

    answered = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(DEADLINE)
                connection.sendall(frame(SETTINGS, 0, 0))
                received = b""
                streams = 0
                while not answered.is_set():
                    received += connection.recv(65536)
                    if received.startswith(b"PRI"):
                        received = received[24:]
                    while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3], "big"):
                        kind, flags = received[3], received[4]
                        stream = int.from_bytes(received[5:9], "big")
                        received = received[9 + int.from_bytes(received[:3], "big") :]
                        if kind == PING and flags & ACK:
                            answered.set()
                        if kind == HEADERS:
                            streams += 1
                            head = [(":status", "200"), ("content-type", "application/grpc")]
                            reply = frame(HEADERS, END_HEADERS, stream, header_block(head))
                            if streams == 1:  # the ping that finds out whether there is a server
                                status = header_block([("grpc-status", "0")])
                                reply += frame(DATA, 0, stream, bytes(5))
                                reply += frame(HEADERS, END_HEADERS | 1, stream, status)
                            else:
                                content = answer(tid=1)
                                reply += frame(
                                    DATA, 0, stream, b"\0" + len(content).to_bytes(4, "big") + content
                                )
                                reply += frame(PING, 0, 0, bytes(8))
                            connection.sendall(reply)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        options = ConnectionOptions(f"127.0.0.1:{listener.getsockname()[1]}", transport="http2")
        with Client(options) as client:
            results = client.run_many([Command("true")] * 2)
            assert next(results).tid == 1
            assert answered.wait(DEADLINE)
            results.close()
        server.join(DEADLINE)


def test_every_address_of_a_name_is_tried(
    scripted: Scripted, connect: Connect, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    if transport == "grpc":
        pytest.skip("gRPC asks for addresses by itself")
    server = scripted()
    real = socket.getaddrinfo

    def several(host: str | bytes, port: int, *others: object, **more: object) -> list[object]:
        if host not in ("several.test", b"several.test"):
            return real(host, port, *others, **more)  # type: ignore[arg-type]
        if more.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        addresses = [("127.0.0.3", 1), ("127.0.0.2", 1), ("127.0.0.1", server.port)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    with connect(ConnectionOptions(f"several.test:{server.port}")) as client:
        assert client.ping(b"x").data == b"x"


def test_a_name_without_an_address_is_told(connect: Connect) -> None:
    with connect(ConnectionOptions("nobody.invalid:1")) as client, pytest.raises(UnavailableError) as caught:
        client.run(Command("true"), timeout=20)
    assert "the host name is not known" in str(caught.value)
    assert not caught.value.sent


def test_a_resolver_that_does_not_answer_holds_no_call_beyond_its_deadline(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    if transport == "grpc":
        pytest.skip("gRPC asks for addresses by itself")
    over = threading.Event()
    real = socket.getaddrinfo

    def silent(host: str | bytes, port: int, *others: object, **more: object) -> list[object]:
        if host in ("silent.test", b"silent.test") and not more.get("flags"):
            over.wait()  # in place of a name server that is silent
        return real(host, port, *others, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    try:
        with (
            connect(ConnectionOptions("silent.test:1")) as client,
            pytest.raises(DeadlineExceededError) as caught,
        ):
            client.run(Command("true"), timeout=0.3)
        assert not caught.value.sent
    finally:
        over.set()


def test_a_resolver_that_does_not_answer_holds_up_no_loop_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(host: str | bytes, port: int, *others: object, **more: object) -> list[object]:
        if not more.get("flags"):
            over.wait()  # in place of a name server that is silent
        raise socket.gaierror(socket.EAI_NONAME, "not an address")

    async def call() -> None:
        async with AsyncClient(ConnectionOptions("silent.test:1", transport="http2")) as client:
            with pytest.raises(DeadlineExceededError):
                await client.run(Command("true"), timeout=0.1)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(asyncio.run, call())
        try:
            running.result(DEADLINE)
        finally:
            over.set()


async def test_a_server_that_takes_nothing_and_goes_away_keeps_no_connection() -> None:
    from tests.attacks.raw_http2 import ACK, GOAWAY, SETTINGS, frame, settings, window_update

    most = 2**31 - 1
    begun = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + 1000
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]

    def serve() -> socket.socket:
        connection, _ = listener.accept()
        connection.settimeout(DEADLINE)
        connection.sendall(settings((4, most)) + window_update(0, most - 65_535) + frame(SETTINGS, ACK, 0))
        got = 0
        while got < begun:
            got += len(connection.recv(100))
        connection.sendall(frame(GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4)))
        return connection

    def kept() -> bool:
        connections = psutil.Process().net_connections("tcp")
        return any(each.raddr and each.raddr.port == port for each in connections)

    async with AsyncClient(ConnectionOptions(f"127.0.0.1:{port}", transport="http2")) as client:
        serving = asyncio.create_task(asyncio.to_thread(serve))
        with pytest.raises((UnavailableError, DeadlineExceededError)):
            await client.ping(bytes(8_000_000), timeout=0.5)
        with await serving, listener:
            for _ in range(500):
                if not kept():
                    break
                await asyncio.sleep(0.02)
            assert not kept()


def test_a_connection_that_comes_about_after_its_client_was_closed_is_closed() -> None:
    from tests.attacks.raw_http2 import SETTINGS, frame

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        client = Client(ConnectionOptions(f"127.0.0.1:{listener.getsockname()[1]}", transport="http2"))
        running = threads.submit(client.run, Command("true"), timeout=DEADLINE)
        server, _ = listener.accept()
        with server:
            server.settimeout(DEADLINE)
            assert server.recv(1)  # it greets, and waits for the server to do so
            client.close()
            server.sendall(frame(SETTINGS, 0, 0))
            while server.recv(65536):
                pass
        assert isinstance(running.exception(DEADLINE), UnavailableError)


@pytest.mark.parametrize("key", ["connection", "te", "Content-Type", "host", "transfer-encoding"])
def test_headers_of_http_are_no_metadata(key: str) -> None:
    with pytest.raises(ConfigurationError, match="metadata key"):
        call_metadata(ConnectionOptions("127.0.0.1:1"), [(key, "x")])


def test_blanks_around_metadata_do_not_end_the_call(scripted: Scripted, connect: Connect) -> None:
    with connect(ConnectionOptions(scripted().target)) as client:
        assert client.ping(b"x", metadata=[("x-note", " two words ")]).data == b"x"


async def _appeared(files: list[Path]) -> None:
    while not all(file.exists() for file in files):
        await asyncio.sleep(0.02)


async def test_a_server_that_takes_few_calls_at_once_gets_few(serve: Serve, tmp_path: Path) -> None:
    server = serve("[limits]\nmax_streams = 3\nmax_connections = 1\n")
    options = ConnectionOptions(server.target, transport="http2")
    async with AsyncClient(options) as client:
        pongs = await asyncio.gather(*(client.ping(bytes([n])) for n in range(50)))
        assert [pong.data for pong in pongs] == [bytes([n]) for n in range(50)]
        over = tmp_path / "over"
        wait = f"until [ -e {over} ]; do sleep 0.05; done"
        begun = [tmp_path / f"begun{number}" for number in range(3)]
        busy = [asyncio.create_task(client.run(Command(f"touch {each}; {wait}"))) for each in begun]
        await asyncio.wait_for(_appeared(begun), DEADLINE)
        with pytest.raises(DeadlineExceededError) as caught:
            await client.run(Command("true"), timeout=0.2)
        assert not caught.value.sent
        over.touch()
        assert (await client.ping(b"after")).data == b"after"
        assert [result.rc for result in await asyncio.gather(*busy)] == [0, 0, 0]


def test_the_wrong_number_of_answers_is_told_as_what_it_is(connect: Connect) -> None:
    from .hostile.neighbours import hostile_servers

    with hostile_servers() as targets:
        for kind, told in (
            ("no message", "without an answer"),
            ("two messages", "more than one answer"),
            ("two messages and no end", "more than one answer"),
        ):
            with (
                connect(ConnectionOptions(targets[kind])) as client,
                pytest.raises(ServerError, match=told) as caught,
            ):
                client.ping(timeout=DEADLINE)
            assert not isinstance(caught.value, ProtocolError)
