"""Reaching a server through a proxy that the environment names; gRPC does the same."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from remsvc.client import ConnectionOptions
from remsvc.client.http2.proxy import Proxy, proxy_for
from remsvc.client.target import Target
from remsvc.command import Command
from remsvc.errors import UnavailableError
from tests.client.conftest import Connect
from tests.client.scripted_server import ScriptedServer

HOST = Target("build7.example.com", 50051)


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"http_proxy": "http://p:3128"}, Proxy(Target("p", 3128))),
        ({"http_proxy": "http://p"}, Proxy(Target("p", 80))),
        ({"http_proxy": "http://p:3128/"}, Proxy(Target("p", 3128))),
        ({"http_proxy": "http://[::1]:3128"}, Proxy(Target("::1", 3128))),
        ({"http_proxy": "http://ann:s%40cret@p:3128"}, Proxy(Target("p", 3128), "ann:s@cret")),
        ({"http_proxy": "http://a", "https_proxy": "http://b"}, Proxy(Target("b", 80))),
        ({"https_proxy": "http://b", "grpc_proxy": "http://c"}, Proxy(Target("c", 80))),
        ({"http_proxy": "socks5://p:1"}, None),
        ({"http_proxy": "http://:1"}, None),
        ({"http_proxy": "http://p:many"}, None),
        ({"HTTP_PROXY": "http://p:3128"}, None),
        ({"http_proxy": "http://p", "no_proxy": "example.com"}, None),
        ({"http_proxy": "http://p", "no_proxy": "other.org, .EXAMPLE.com"}, None),
        ({"http_proxy": "http://p", "no_proxy": "example.org,,"}, Proxy(Target("p", 80))),
        ({"http_proxy": "http://p", "no_proxy": "example.com", "no_grpc_proxy": "x"}, Proxy(Target("p", 80))),
    ],
)
def test_the_environment_names_the_proxy(environment: dict[str, str], proxy: Proxy | None) -> None:
    assert proxy_for(HOST, environment) == proxy


@pytest.mark.parametrize(
    ("host", "without", "direct"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::1", "fd00::/8", True),
        ("name", "10.0.0.0/8", False),
        ("10.1.2.3", "10.0.0.0/eight", False),
    ],
)
def test_networks_can_be_reached_directly(host: str, without: str, direct: bool) -> None:
    environment = {"http_proxy": "http://p", "no_proxy": without}
    assert (proxy_for(Target(host, 1), environment) is None) is direct


class RealProxy:
    """A proxy that passes one connection on, or refuses it."""

    def __init__(self, reply: bytes) -> None:
        self.requests: list[bytes] = []
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://ann:secret@127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = client.recv(1000)
            if not piece:
                client.close()
                return
            request += piece
        self.requests.append(request)
        host, _, port = request.split()[1].decode().rpartition(":")
        if b" 200 " not in self._reply:
            with client:
                client.sendall(self._reply)
            return
        with client, socket.create_connection((host, int(port))) as server:
            client.sendall(self._reply)
            back = threading.Thread(target=_copy, args=(server, client))
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], RealProxy]]:
    started: list[RealProxy] = []

    def start(reply: bytes) -> RealProxy:
        started.append(RealProxy(reply))
        for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", started[-1].uri)
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_a_server_is_reached_through_a_proxy(
    proxy: Callable[[bytes], RealProxy], scripted: Callable[..., ScriptedServer], connect: Connect
) -> None:
    server = scripted()
    through = proxy(b"HTTP/1.1 200 Connection established\r\nVia: us\r\n\r\n")
    with connect(ConnectionOptions(server.target, proxy=True)) as client:
        assert client.ping(b"x").data == b"x"
    (request,) = through.requests
    assert request.startswith(f"CONNECT {server.target} HTTP/1.".encode())
    assert b"proxy-authorization: basic yw5uonnly3jlda==" in request.lower()


def test_a_proxy_that_refuses_is_told(
    proxy: Callable[[bytes], RealProxy], scripted: Callable[..., ScriptedServer], connect: Connect
) -> None:
    server = scripted()
    proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    options = ConnectionOptions(server.target, proxy=True)
    with connect(options) as client, pytest.raises(UnavailableError) as caught:
        client.run(Command("true"), timeout=10)
    assert not caught.value.sent


def test_no_proxy_is_asked_where_there_is_an_exception(
    proxy: Callable[[bytes], RealProxy],
    scripted: Callable[..., ScriptedServer],
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = scripted()
    through = proxy(b"HTTP/1.1 200 OK\r\n\r\n")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with connect(ConnectionOptions(server.target, proxy=True)) as client:
        client.ping()
    assert not through.requests


@pytest.mark.parametrize("proxied", [None, False])
def test_no_proxy_sees_a_token_in_the_clear(
    proxied: bool | None,
    proxy: Callable[[bytes], RealProxy],
    scripted: Callable[..., ScriptedServer],
    connect: Connect,
) -> None:
    server = scripted()
    through = proxy(b"HTTP/1.1 200 OK\r\n\r\n")
    with connect(ConnectionOptions(server.target, token="secret", proxy=proxied)) as client:
        client.ping()
    assert not through.requests


@pytest.mark.parametrize(
    ("options", "used"),
    [
        (ConnectionOptions("build7:1"), False),
        (ConnectionOptions("build7:1", proxy=True), True),
        (ConnectionOptions("build7:1", tls=True), True),
        (ConnectionOptions("build7:1", tls=True, proxy=False), False),
        (ConnectionOptions("127.0.0.1:1", tls=True), False),
        (ConnectionOptions("[::1]:1", tls=True), False),
        (ConnectionOptions("localhost:1", tls=True), False),
        (ConnectionOptions("127.0.0.1:1", tls=True, proxy=True), True),
    ],
)
def test_a_proxy_is_used_with_tls_or_when_asked_for(options: ConnectionOptions, used: bool) -> None:
    assert options.may_use_proxy is used
