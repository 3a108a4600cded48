"""TLS and mutual TLS."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from .certificates import Authority, Identity
from .client import Client, bearer, command, refused


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


def tls_configuration(identity: Identity, ca: Path | None = None) -> str:
    files = f"cert = {identity.certificate}\nkey = {identity.key}\n" + (f"ca = {ca}\n" if ca else "")
    return f"[server]\nhost = 127.0.0.1\nport = 0\n[tls]\nenabled = true\n{files}"


def trusting(authority: Authority, identity: Identity | None = None) -> grpc.ChannelCredentials:
    """Credentials that trust the authority, and present the identity's certificate."""
    key, certificate = identity.pem if identity else (None, None)
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)


@pytest.fixture(scope="module")
def tls_server(serve_module, authority: Authority):
    return serve_module(tls_configuration(authority.issue("server")))


@pytest.fixture(scope="module")
def mutual_tls_server(serve_module, authority: Authority):
    return serve_module(tls_configuration(authority.issue("mutual-server"), authority.certificate))


def assert_serves(client: Client) -> None:
    assert client.ping(seq=5).seq == 5
    assert client.run("echo encrypted").out == "encrypted\n"
    assert [answer.rc for answer in client.stream([command("exit 2")])] == [2]


def test_a_client_that_trusts_the_authority_is_served(tls_server, connect, authority: Authority) -> None:
    """[tls] enabled = true, cert, key"""
    assert_serves(connect(tls_server.target, credentials=trusting(authority)))


def test_a_plaintext_client_on_a_tls_port_fails(tls_server, connect) -> None:
    """[tls] enabled = true: nothing is served in plain text"""
    with refused(grpc.StatusCode.UNAVAILABLE):
        connect(tls_server.target).ping(timeout=30)


def test_a_tls_client_on_a_plaintext_port_fails(shared_server, connect, authority: Authority) -> None:
    """Without [tls] the server speaks plain text only."""
    with refused(grpc.StatusCode.UNAVAILABLE):
        connect(shared_server.target, credentials=trusting(authority)).ping(timeout=30)


def test_the_server_goes_on_after_failed_handshakes(tls_server, connect, authority: Authority) -> None:
    """A client that cannot connect does no harm to others."""
    for _ in range(5):
        with refused(grpc.StatusCode.UNAVAILABLE):
            connect(tls_server.target).ping(timeout=30)
    assert_serves(connect(tls_server.target, credentials=trusting(authority)))


def test_a_client_that_does_not_know_the_authority_fails(tls_server, connect, stranger: Authority) -> None:
    """cert: the server presents the configured certificate"""
    with refused(grpc.StatusCode.UNAVAILABLE):
        connect(tls_server.target, credentials=trusting(stranger)).ping(timeout=30)


def test_a_certificate_for_another_host_fails(serve, connect, authority: Authority) -> None:
    """cert: the server presents the configured certificate: here one for another host"""
    server = serve(tls_configuration(authority.issue("elsewhere", host="elsewhere.example")))
    with refused(grpc.StatusCode.UNAVAILABLE):
        connect(server.target, credentials=trusting(authority)).ping(timeout=30)
    named = (("grpc.ssl_target_name_override", "elsewhere.example"),)
    assert_serves(connect(server.target, credentials=trusting(authority), options=named))


def test_an_expired_server_certificate_is_said(
    tmp_path: Path, remsvc, serve, connect, authority: Authority
) -> None:
    """An expired certificate serves nobody: check-config says so, and no client connects."""
    expired = authority.issue("expired-server", valid_days=-1)
    config = tmp_path / "expired.ini"
    config.write_text(tls_configuration(expired))
    check = remsvc("check-config", str(config))
    assert str(expired.certificate) in check.stdout + check.stderr
    assert "expired" in check.stdout + check.stderr
    if check.returncode == 0:  # a warning: it may be renewed while the server runs
        server = serve(tls_configuration(expired))
        assert "expired" in server.log
        with refused(grpc.StatusCode.UNAVAILABLE):
            connect(server.target, credentials=trusting(authority)).ping(timeout=30)


def test_a_client_with_a_certificate_is_served(mutual_tls_server, connect, authority: Authority) -> None:
    """ca given: clients must present a certificate it signed (mutual TLS)"""
    assert_serves(
        connect(mutual_tls_server.target, credentials=trusting(authority, authority.issue("client")))
    )


def test_a_client_without_a_certificate_fails(mutual_tls_server, connect, authority: Authority) -> None:
    """ca given: clients must present a certificate it signed (mutual TLS)"""
    with refused(grpc.StatusCode.UNAVAILABLE):
        connect(mutual_tls_server.target, credentials=trusting(authority)).ping(timeout=30)


def test_a_client_with_a_strangers_certificate_fails(
    mutual_tls_server, connect, authority: Authority, stranger: Authority
) -> None:
    """clients must present a certificate it signed"""
    with refused(grpc.StatusCode.UNAVAILABLE):
        credentials = trusting(authority, stranger.issue("client"))
        connect(mutual_tls_server.target, credentials=credentials).ping(timeout=30)


def test_a_client_with_an_expired_certificate_fails(mutual_tls_server, connect, authority: Authority) -> None:
    """clients must present a certificate it signed: a valid one"""
    with refused(grpc.StatusCode.UNAVAILABLE):
        credentials = trusting(authority, authority.issue("expired-client", valid_days=-1))
        connect(mutual_tls_server.target, credentials=credentials).ping(timeout=30)


def test_a_plaintext_client_on_a_mutual_tls_port_fails(mutual_tls_server, connect) -> None:
    """ca given: clients must present a certificate it signed (mutual TLS)"""
    with refused(grpc.StatusCode.UNAVAILABLE):
        connect(mutual_tls_server.target).ping(timeout=30)


def test_tokens_and_tls_work_together(serve, connect, authority: Authority) -> None:
    """[auth] and mutual TLS: both are asked for."""
    identity = authority.issue("both-server")
    server = serve(tls_configuration(identity, authority.certificate) + "[auth]\nprod = right-token\n")
    credentials = trusting(authority, identity)
    assert_serves(connect(server.target, bearer("right-token"), credentials))
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        connect(server.target, credentials=credentials).ping()
