"""TLS 1.2 at least, with ciphers that are still good, and no way to talk the server into less."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import select
import socket
import ssl
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from tests.attacks.abuses import PING_PATH, STREAM_PATH
from tests.attacks.conftest import AUTH, CREDENTIALS, METADATA, eventually, raw
from tests.attacks.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    RawPeer,
    call_headers,
    frame,
    header_block,
    message,
)
from tests.conftest import DEADLINE, Serve, ServerProcess
from tests.contract.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(serve_module: Serve, authority: Authority) -> ServerProcess:
    identity = authority.issue("server", host="localhost")
    return serve_module(
        f"[server]\nhost = 127.0.0.1\nport = 0\n{AUTH}"
        f"[tls]\nenabled = true\ncert = {identity.certificate}\nkey = {identity.key}\n"
        "[limits]\nhandshake_timeout_ms = 3000\n"
    )


def client(
    authority: Authority, low: ssl.TLSVersion, high: ssl.TLSVersion, ciphers: str = ""
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = low, high
    context.set_ciphers((ciphers or "ALL") + ":@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    return context


def connect(server: ServerProcess, context: ssl.SSLContext) -> ssl.SSLSocket:
    peer = RawPeer(server.host, server.port, tls=context, timeout=DEADLINE)
    assert isinstance(peer.socket, ssl.SSLSocket)
    return peer.socket


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_good_is_spoken(server: ServerProcess, authority: Authority, version: ssl.TLSVersion) -> None:
    with connect(server, client(authority, version, version)) as connection:
        assert connection.version() == version.name.replace("_", ".")
        assert connection.selected_alpn_protocol() == "h2"
        name, _, bits = connection.cipher() or ("", "", 0)
        assert bits >= 128
        assert "GCM" in name or "CHACHA20" in name


def test_a_client_that_can_do_both_gets_the_newer(server: ServerProcess, authority: Authority) -> None:
    context = client(authority, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    with connect(server, context) as connection:
        assert connection.version() == "TLSv1.3"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_what_is_old_is_refused(server: ServerProcess, authority: Authority, version: ssl.TLSVersion) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)) as caught:
        connect(server, client(authority, version, version))
    assert "NO_CIPHERS_AVAILABLE" not in str(caught.value), "this client cannot even try"


@pytest.mark.parametrize(
    "ciphers",
    ["NULL", "aNULL", "RC4", "3DES", "MD5", "EXPORT", "AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "kRSA"],
)
def test_ciphers_that_are_no_good_are_refused(
    server: ServerProcess, authority: Authority, ciphers: str
) -> None:
    version = ssl.TLSVersion.TLSv1_2
    try:
        context = client(authority, version, version, ciphers)
    except ssl.SSLError:
        pytest.skip("this OpenSSL does not know them any more")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(server, context)


def test_no_renegotiation_and_no_compression(server: ServerProcess, authority: Authority) -> None:
    version = ssl.TLSVersion.TLSv1_2
    with connect(server, client(authority, version, version)) as connection:
        assert connection.compression() is None


def test_plaintext_is_answered_by_closing(server: ServerProcess) -> None:
    with raw(server) as peer:
        peer.send(PREFACE, frame(SETTINGS, 0, 0))
        peer.wait_closed()


def test_a_client_that_does_not_ask_for_http2_is_closed(server: ServerProcess, authority: Authority) -> None:
    for protocols in ([], ["http/1.1"]):
        context = ssl.create_default_context(cafile=authority.certificate)
        if protocols:
            context.set_alpn_protocols(protocols)
        with RawPeer(server.host, server.port, tls=context, timeout=DEADLINE) as peer:
            assert list(peer.frames()) == []


def hello(authority: Authority) -> bytes:
    """What a client says first."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = client(authority, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(to_client, to_server, server_hostname="localhost").do_handshake()
    return to_server.read()


@pytest.mark.parametrize("part", [0, 1, 50, None])
def test_a_handshake_that_does_not_end_is_given_up(
    server: ServerProcess, authority: Authority, part: int | None
) -> None:
    """``[limits] handshake_timeout_ms``: whatever of it has come."""
    with raw(server) as peer:
        peer.send(hello(authority)[:part])
        while peer.socket.recv(65536):
            pass


@pytest.mark.own_http2
def test_a_refused_client_is_told_so_by_tls(server: ServerProcess, authority: Authority) -> None:
    """And is not left to guess why the connection has ended."""
    version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        connect(server, client(authority, version, version, "AES128-SHA"))


@pytest.mark.own_http2
def test_handshakes_that_do_not_end_make_room(serve: Serve, authority: Authority) -> None:
    """They count as connections, and go before all others."""
    identity = authority.issue("room", host="localhost")
    server = serve(
        f"[server]\nhost = 127.0.0.1\nport = 0\n{AUTH}"
        f"[tls]\nenabled = true\ncert = {identity.certificate}\nkey = {identity.key}\n"
        "[limits]\nmax_connections = 20\nhandshake_timeout_ms = 600000\n"
    )
    first = hello(authority)
    with contextlib.ExitStack() as peers:
        halves = [peers.enter_context(raw(server)) for _ in range(100)]
        for number, peer in enumerate(halves):
            with contextlib.suppress(OSError):  # closed already
                peer.send(first[: number % 2 * 50])
        eventually(lambda: sum(peer.is_closed() for peer in halves) >= 80)
        with tls_client(server, authority) as good:
            good.Ping(RemSvc_pb2.PingMsg(), metadata=METADATA, timeout=DEADLINE)


def test_handshakes_have_turns(serve: Serve, authority: Authority) -> None:
    """However many begin at one moment, and however much each costs: a good caller is answered between."""
    key = rsa.generate_private_key(65537, 4096)
    identity = authority.issue("slow", host="localhost", key=key)
    server = serve(
        f"[server]\nhost = 127.0.0.1\nport = 0\ntransport = http2\n{AUTH}"
        f"[tls]\nenabled = true\ncert = {identity.certificate}\nkey = {identity.key}\n"
    )
    first = hello(authority)
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(tls_client(server, authority))
        good.Ping(RemSvc_pb2.PingMsg(), metadata=METADATA, timeout=DEADLINE)
        strangers = [stack.enter_context(raw(server)) for _ in range(300)]
        for stranger in strangers:
            stranger.send(first)
        for _ in range(10):
            good.Ping(RemSvc_pb2.PingMsg(), metadata=METADATA, timeout=DEADLINE)
        for stranger in strangers:
            stranger.socket.setblocking(False)
        answered = select.select([stranger.socket for stranger in strangers], [], [], 0)[0]
        assert len(answered) < len(strangers), "all handshakes came first"


_Got = TypeVar("_Got")


class TlsByHand:
    """A client that decides which bytes of which records go when."""

    def __init__(self, server: ServerProcess, authority: Authority) -> None:
        context = ssl.create_default_context(cafile=authority.certificate)
        context.set_alpn_protocols(["h2"])
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._socket = socket.create_connection((server.host, server.port), DEADLINE)
        self._read_on(self._tls.do_handshake)

    def __enter__(self) -> TlsByHand:  # noqa: PYI034  Self is of Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def record(self, *plain: bytes) -> bytes:
        """A record, or several, of these bytes."""
        self._tls.write(b"".join(plain))
        return self._outgoing.read()

    def send(self, encrypted: bytes) -> None:
        self._socket.sendall(encrypted)

    def wait_for(self, stream: int) -> None:
        """Read until a stream has ended."""
        got = b""
        while True:
            while len(got) >= 9 and len(got) >= (size := 9 + int.from_bytes(got[:3], "big")):
                if got[3] == HEADERS and got[4] & END_STREAM and int.from_bytes(got[5:9], "big") == stream:
                    return
                got = got[size:]
            got += self._read_on(lambda: self._tls.read(65536))

    def _read_on(self, do: Callable[[], _Got]) -> _Got:
        while True:
            try:
                got = do()
            except ssl.SSLWantReadError:
                self.send(self._outgoing.read())
                received = self._socket.recv(65536)
                assert received, "the server has closed the connection"
                self._incoming.write(received)
            else:
                self.send(self._outgoing.read())
                return got


@pytest.mark.own_http2
def test_what_was_decrypted_before_a_pause_needs_no_packet_to_be_taken_in(
    server: ServerProcess, authority: Authority
) -> None:
    """Of a record that has no room in the buffer, a part stays with TLS while other input has its turn."""

    def call(stream: int, path: str) -> bytes:
        return frame(HEADERS, END_HEADERS, stream, header_block(call_headers(path, CREDENTIALS)))

    ping = frame(DATA, END_STREAM, 5, message())
    small = frame(DATA, 0, 3, bytes(111))
    process = psutil.Process(server.process.pid)
    with TlsByHand(server, authority) as peer, tls_client(server, authority) as good:
        peer.send(peer.record(PREFACE, frame(SETTINGS, 0, 0), frame(SETTINGS, ACK, 0)))
        peer.send(peer.record(call(1, PING_PATH), frame(DATA, END_STREAM, 1, message())))
        peer.wait_for(1)
        begin = call(3, STREAM_PATH) + frame(DATA, 0, 3, message(bytes(11), claimed=60_000))
        last = call(5, PING_PATH) + ping
        between = small * (42_000 // len(small))
        plain = begin + between + last
        encrypted = b"".join(peer.record(plain[at : at + 15_000]) for at in range(0, len(plain), 15_000))
        peer.send(encrypted[:10_000])
        for _ in range(2):  # so the first part of a record was read before the rest is here
            good.Ping(RemSvc_pb2.PingMsg(), metadata=METADATA, timeout=DEADLINE)
        process.suspend()
        peer.send(encrypted[10_000:])
        process.resume()
        peer.wait_for(5)


@pytest.mark.own_http2
def test_who_asks_for_new_keys_again_and_again_is_cut(server: ServerProcess, authority: Authority) -> None:
    """Each time costs the server 60 µs and an answer, for 27 bytes that carry nothing (TLS 1.3)."""
    version = ssl.TLSVersion.TLSv1_3
    with connect(server, client(authority, version, version)) as connection:
        ask = new_keys(connection)
        connection.settimeout(DEADLINE)
        assert not all(ask() == 1 for _ in range(100_000))
    eventually(lambda: "makes TLS work for nothing" in server.log)


def new_keys(connection: ssl.SSLSocket) -> Callable[[], int]:
    """Asks for new keys, which Python's ``ssl`` cannot do: by OpenSSL itself, the one that it uses."""
    name = ctypes.util.find_library("ssl")
    if sys.implementation.name != "cpython" or name is None:
        pytest.skip("OpenSSL's library cannot be reached")
    library = ctypes.CDLL(name)
    if library.OpenSSL_version_num() != ssl.OPENSSL_VERSION_NUMBER:
        pytest.skip("Python uses another OpenSSL than the system's")
    own: object = connection._sslobj  # type: ignore[attr-defined]
    pointer = ctypes.c_void_p(ctypes.c_void_p.from_address(id(own) + object.__basicsize__ + 8).value)
    library.SSL_do_handshake.argtypes = [ctypes.c_void_p]
    library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    update_requested = 1

    def ask() -> int:
        library.SSL_key_update(pointer, update_requested)
        return int(library.SSL_do_handshake(pointer))

    return ask


@contextlib.contextmanager
def tls_client(server: ServerProcess, authority: Authority) -> Iterator[RemSvc_pb2_grpc.RemSvcStub]:
    """A client that does as it should."""
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.secure_channel(f"localhost:{server.port}", credentials, options) as channel:
        yield RemSvc_pb2_grpc.RemSvcStub(channel)


def test_the_keys_permissions_are_looked_at(tmp_path: Path, authority: Authority) -> None:
    from remsvc.server.config import check_config

    identity = authority.issue("loose", host="localhost")
    identity.key.chmod(0o644)
    path = tmp_path / "server.ini"
    path.write_text(f"[tls]\nenabled = true\ncert = {identity.certificate}\nkey = {identity.key}\n")
    _, found = check_config(path)
    assert any("chmod 600" in line for line in found)
