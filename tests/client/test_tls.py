"""TLS, mutual TLS and tokens against the real server; faulty files; what a failed handshake means."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from remsvc.client import ConnectionOptions
from remsvc.client.transport_choice import open_transport
from remsvc.command import Command
from remsvc.errors import ConfigurationError, UnauthenticatedError, UnavailableError
from tests.contract.certificates import Authority, Identity

from .conftest import Connect

if TYPE_CHECKING:
    from tests.conftest import Serve


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that the server does not know."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def client_identity(authority: Authority) -> Identity:
    return authority.issue("client")


def tls_config(identity: Identity, ca: Path | None = None) -> str:
    files = f"cert = {identity.certificate}\nkey = {identity.key}\n" + (f"ca = {ca}\n" if ca else "")
    return f"[server]\nhost = 127.0.0.1\n[tls]\nenabled = true\n{files}"


@pytest.fixture(scope="module")
def tls_target(serve_module: Serve, authority: Authority) -> str:
    return serve_module(tls_config(authority.issue("server")) + "[auth]\ntester = s3cret\n").target


@pytest.fixture(scope="module")
def mutual_target(serve_module: Serve, authority: Authority) -> str:
    return serve_module(tls_config(authority.issue("mutual"), authority.certificate)).target


@pytest.fixture
def options(tls_target: str, authority: Authority) -> ConnectionOptions:
    """Right in everything."""
    return ConnectionOptions(tls_target, tls=True, ca_cert=authority.certificate, token="s3cret")


def failure(connect: Connect, options: ConnectionOptions) -> UnavailableError:
    """How a command fails that never gets a connection."""
    with connect(options) as client, pytest.raises(UnavailableError) as caught:
        client.run(Command("true"))
    assert not caught.value.sent
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_everything_works_over_tls_with_a_token(connect: Connect, options: ConnectionOptions) -> None:
    with connect(options) as client:
        assert client.ping(b"data").data == b"data"
        assert client.status().msg.startswith("state=OK ")
        result = client.run(Command("echo out; echo err >&2; exit 3"))
        assert (result.rc, result.out, result.err) == (3, "out\n", "err\n")
        results = client.run_many([Command(f"exit {number}") for number in range(20)])
        assert [(result.tid, result.rc) for result in results] == [(n + 1, n) for n in range(20)]


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_wrong_token_is_refused(connect: Connect, options: ConnectionOptions, token: str | None) -> None:
    with connect(replace(options, token=token)) as client, pytest.raises(UnauthenticatedError):
        client.run(Command("true"))


def test_an_unknown_authority_is_told(
    connect: Connect, options: ConnectionOptions, stranger: Authority
) -> None:
    told = failure(connect, replace(options, ca_cert=stranger.certificate))
    assert "certificate was not accepted" in told.details
    assert "authority is not trusted" in told.details


def test_the_system_does_not_know_our_authority(connect: Connect, options: ConnectionOptions) -> None:
    assert "authority is not trusted" in failure(connect, replace(options, ca_cert=None)).details


def test_the_systems_trust_store_is_used(
    options: ConnectionOptions, authority: Authority, transport: str
) -> None:
    script = (
        "from remsvc.client import *\n"
        f"options = ConnectionOptions({options.target!r}, True, token='s3cret', transport={transport!r})\n"
        "with Client(options) as client: client.ping()"
    )
    environment = {**os.environ, "SSL_CERT_FILE": str(authority.certificate)}
    environment.pop("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", None)
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_an_expired_certificate_is_told(serve: Serve, connect: Connect, authority: Authority) -> None:
    server = serve(tls_config(authority.issue("expired", valid_days=-1)))
    told = failure(connect, ConnectionOptions(server.target, tls=True, ca_cert=authority.certificate))
    assert "certificate was not accepted" in told.details
    assert "expired" in told.details


def test_another_hosts_certificate_is_told(serve: Serve, connect: Connect, authority: Authority) -> None:
    server = serve(tls_config(authority.issue("elsewhere", host="elsewhere.example")))
    told = failure(connect, ConnectionOptions(server.target, tls=True, ca_cert=authority.certificate))
    assert "issued for another host name" in told.details


def test_a_plaintext_client_on_a_tls_port_is_told(connect: Connect, options: ConnectionOptions) -> None:
    assert "does it expect TLS?" in failure(connect, replace(options, tls=False)).details


def test_a_tls_client_on_a_plaintext_port_is_told(
    serve: Serve, connect: Connect, options: ConnectionOptions
) -> None:
    told = failure(connect, replace(options, target=serve().target))
    assert "does not speak TLS on this port" in told.details


def test_mutual_tls_takes_a_certificate_of_the_servers_authority(
    connect: Connect, mutual_target: str, authority: Authority, stranger: Authority, client_identity: Identity
) -> None:
    options = ConnectionOptions(
        mutual_target,
        tls=True,
        ca_cert=authority.certificate,
        client_cert=client_identity.certificate,
        client_key=client_identity.key,
    )
    with connect(options) as client:
        assert client.run(Command("echo in")).out == "in\n"
    for cert, key in (
        (None, None),
        (other := stranger.issue("other")) and (other.certificate, other.key),
        (old := authority.issue("old", valid_days=-1)) and (old.certificate, old.key),
    ):
        told = failure(connect, replace(options, client_cert=cert, client_key=key))
        assert "does it expect a client certificate" in told.details


def problem(options: ConnectionOptions) -> str:
    """What is wrong, which every transport tells in the same words."""
    told = set()
    for transport in ("http2", "grpc"):
        with pytest.raises(ConfigurationError) as caught:
            open_transport(replace(options, transport=transport))
        assert len(caught.value.problems) == 1
        told.add(caught.value.problems[0])
    assert len(told) == 1
    return told.pop()


def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, options: ConnectionOptions, client_identity: Identity
) -> None:
    missing = tmp_path / "missing.pem"
    assert problem(replace(options, ca_cert=missing)) == (
        f"ca_cert {missing}: cannot be read: No such file or directory"
    )
    assert "Is a directory" in problem(replace(options, ca_cert=tmp_path))
    pair = replace(options, client_cert=client_identity.certificate, client_key=client_identity.key)
    assert problem(replace(pair, client_cert=missing)).startswith(f"client_cert {missing}: cannot be read")
    assert problem(replace(pair, client_key=missing)).startswith(f"client_key {missing}: cannot be read")
    assert problem(replace(pair, client_key=Path("a\0b"))).startswith("client_key a\0b: cannot be read")


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="needs a user from whom a file can be locked away"
)
def test_a_locked_key_is_named(tmp_path: Path, options: ConnectionOptions, client_identity: Identity) -> None:
    locked = tmp_path / "locked.key"
    locked.write_bytes(client_identity.key.read_bytes())
    locked.chmod(0)
    told = problem(replace(options, client_cert=client_identity.certificate, client_key=locked))
    assert told == f"client_key {locked}: cannot be read: Permission denied"


def test_a_certificate_and_a_key_belong_together(
    options: ConnectionOptions, authority: Authority, client_identity: Identity
) -> None:
    certificate, key = client_identity.certificate, client_identity.key
    assert problem(replace(options, client_cert=certificate)) == (
        f"client_cert {certificate}: client_key is missing"
    )
    assert problem(replace(options, client_key=key)) == f"client_key {key}: client_cert is missing"
    other = authority.issue("another").key
    assert problem(replace(options, client_cert=certificate, client_key=other)) == (
        f"client_key {other}: does not belong to client_cert {certificate}"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not PEM",
        b"\xff\xfe",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
    ],
)
def test_files_that_are_not_pem_are_named(
    tmp_path: Path, options: ConnectionOptions, client_identity: Identity, content: bytes
) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_bytes(content)
    assert problem(replace(options, ca_cert=bad)) == f"ca_cert {bad}: expected certificates in PEM form"
    pair = replace(options, client_cert=client_identity.certificate, client_key=client_identity.key)
    assert problem(replace(pair, client_cert=bad)) == f"client_cert {bad}: expected a certificate in PEM form"
    assert problem(replace(pair, client_key=bad)) == f"client_key {bad}: expected a private key in PEM form"


def test_an_encrypted_key_is_told(
    tmp_path: Path, options: ConnectionOptions, client_identity: Identity
) -> None:
    key = serialization.load_pem_private_key(client_identity.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"phrase"),
        )
    )
    told = problem(replace(options, client_cert=client_identity.certificate, client_key=encrypted))
    assert told == f"client_key {encrypted}: is encrypted; expected a private key without a passphrase"


def test_text_around_the_certificates_does_no_harm(
    tmp_path: Path, connect: Connect, options: ConnectionOptions, authority: Authority
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes("# für uns\n".encode() + authority.certificate.read_bytes() + b"\ntrailer\n")
    with connect(replace(options, ca_cert=bundle)) as client:
        client.ping()


async def test_a_faulty_file_is_told_before_anything_connects(options: ConnectionOptions) -> None:
    from remsvc.client import AsyncClient

    async with AsyncClient(replace(options, ca_cert=None, tls=False)):
        pass
    with pytest.raises(ConfigurationError, match="cannot be read"):
        async with AsyncClient(replace(options, ca_cert=Path("/missing"))):
            pass
