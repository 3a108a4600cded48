"""TLS 1.2 at least, with ciphers that are still good, and no way to talk the server into less."""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path

import pytest

from tests.attacks.conftest import AUTH, raw
from tests.attacks.raw_http2 import PREFACE, SETTINGS, RawPeer, frame
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


def test_plaintext_is_not_answered(server: ServerProcess) -> None:
    with raw(server) as peer:
        peer.send(PREFACE, frame(SETTINGS, 0, 0))
        assert not [got for got in peer.frames() if got.kind == SETTINGS and got.stream == 0 and got.payload]


def test_the_keys_permissions_are_looked_at(tmp_path: Path, authority: Authority) -> None:
    from remsvc.server.config import check_config

    identity = authority.issue("loose", host="localhost")
    identity.key.chmod(0o644)
    path = tmp_path / "server.ini"
    path.write_text(f"[tls]\nenabled = true\ncert = {identity.certificate}\nkey = {identity.key}\n")
    _, found = check_config(path)
    assert any("chmod 600" in line for line in found)
