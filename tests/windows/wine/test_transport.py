"""What carries calls to a server on Windows, where sockets and the event loop are others than elsewhere."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import grpc
import pytest

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from tests.attacks.raw_http2 import RawPeer
from tests.contract.certificates import Authority

from .conftest import Serve
from .windows_python import DEADLINE, WindowsServer, wait_until, windows_path

RUN = "/RS.RemSvc/RemCmd"
WITHOUT_NGH2 = "import sys\nsys.modules['ngh2'] = None\n"


def reset(peer: RawPeer) -> None:
    """End a connection as a crash does: the other side is told at once, and gets no more answers."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def connect(server: WindowsServer) -> RawPeer:
    host, _, port = server.target.rpartition(":")
    return RawPeer(host, int(port), timeout=DEADLINE)


def echo(channel: grpc.Channel) -> str:
    """What the simplest command answers."""
    request = RemSvc_pb2.RemCmdMsg(cmd="echo hello")
    return RemSvc_pb2_grpc.RemSvcStub(channel).RemCmd(request, timeout=DEADLINE).out.strip()


def assert_quiet(server: WindowsServer) -> None:
    """Nothing but what was asked for is in its log: nobody fills it by coming and going."""
    assert not [line for line in list(server.lines) if " INFO " not in line]


def wait_for_line(server: WindowsServer, text: str) -> None:
    wait_until(lambda: any(text in line for line in list(server.lines)))


def test_http2_is_the_default(windows_server: WindowsServer) -> None:
    wait_for_line(windows_server, "transport=http2")


def test_grpc_carries_calls_where_ngh2_is_missing(windows_serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_NGH2)
    server = windows_serve(PYTHONPATH=windows_path(tmp_path))
    wait_for_line(server, "transport=grpc")
    with grpc.insecure_channel(server.target) as channel:
        assert echo(channel) == "hello"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_serves_both_versions_of_ip(windows_serve: Serve, host: str) -> None:
    port = windows_serve("--host", host).target.rpartition(":")[2]
    for target in (f"127.0.0.1:{port}", f"[::1]:{port}"):
        with grpc.insecure_channel(target) as channel:
            assert echo(channel) == "hello"


@pytest.mark.parametrize("stage", ["connected", "greeted", "calling", "refused"])
def test_connections_that_are_reset_do_no_harm(windows_serve: Serve, stage: str) -> None:
    server = windows_serve()
    for _ in range(20):
        peer = connect(server)
        if stage != "connected":
            peer.greet()
            next(peer.frames())
        if stage == "calling":
            peer.call(1, RUN)
        elif stage == "refused":
            peer.send(b"\xff" * 1000)
        reset(peer)
    with grpc.insecure_channel(server.target) as channel:
        assert echo(channel) == "hello"
    assert_quiet(server)


def test_mutual_tls(windows_serve: Serve, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    identity = authority.issue("server")
    config = tmp_path / "server.ini"
    files = (identity.certificate, identity.key, authority.certificate)
    cert, key, ca = map(windows_path, files)
    config.write_text(
        f"[server]\nhost = 127.0.0.1\n[tls]\nenabled = true\ncert = {cert}\nkey = {key}\nca = {ca}\n"
        "[limits]\nhandshake_timeout_ms = 1000\n"
    )
    server = windows_serve("--config", windows_path(config))
    for text in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
        with connect(server) as peer:  # it never finishes, or is none
            peer.send(text)
            peer.wait_closed()
    root = authority.certificate.read_bytes()
    with (
        grpc.secure_channel(server.target, grpc.ssl_channel_credentials(root)) as channel,
        pytest.raises(grpc.RpcError),
    ):
        echo(channel)
    with grpc.secure_channel(
        server.target, grpc.ssl_channel_credentials(root, *authority.issue("client").pem)
    ) as channel:
        assert echo(channel) == "hello"
    assert_quiet(server)
