"""TLS sessions that are resumed: the client's certificate is still known, and new authorities count."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from tests.attacks.conftest import answer_to
from tests.attacks.raw_http2 import RawPeer, message
from tests.contract.certificates import Authority, Identity
from tests.contract.waiting import wait_until

from .conftest import DEADLINE, RunningServer, Start, posix_only, replace

pytestmark = pytest.mark.timeout(300)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NAMES = [x509.UniformResourceIdentifier("spiffe://corp/airflow")]
OK, UNAUTHENTICATED = b"grpc-status: 0", b"grpc-status: 16"


def client(
    authority: Authority, version: ssl.TLSVersion, identity: Identity, chain: Path | None = None
) -> ssl.SSLContext:
    """Presents the identity's certificate, and the chain's with it."""
    context = ssl.create_default_context(cafile=authority.certificate)
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    if chain is None:
        context.load_cert_chain(identity.certificate, identity.key)
    else:
        both = identity.certificate.with_suffix(".chain.pem")
        both.write_bytes(identity.certificate.read_bytes() + chain.read_bytes())
        context.load_cert_chain(both, identity.key)
    return context


def ping(
    server: RunningServer, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bytes, bool, ssl.SSLSession | None]:
    """How a call ends over a connection of its own, whether the session was resumed, and the session."""
    process = server.process
    with RawPeer(process.host, process.port, tls=context, session=session, timeout=DEADLINE) as peer:
        assert isinstance(peer.socket, ssl.SSLSocket)
        peer.greet()
        peer.call(1, "/RS.RemSvc/Ping", body=message())
        answer = answer_to(peer, 1)
        return answer, bool(peer.socket.session_reused), peer.socket.session


def is_served(server: RunningServer, context: ssl.SSLContext, session: ssl.SSLSession | None) -> bool:
    """Whether TLS lets it in, and a call is answered."""
    try:
        return OK in ping(server, context, session)[0]
    except OSError:
        return False


def configuration(server: Identity, ca: Path) -> str:
    return (
        f"[server]\nport = 0\nhost = 127.0.0.1\ntransport = http2\n[tls]\nenabled = true\n"
        f"cert = {server.certificate}\nkey = {server.key}\nca = {ca}\n"
        "[certificates]\nspiffe://corp/airflow = airflow\n"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_shows_the_clients_certificate(
    start: Start, authority: Authority, version: ssl.TLSVersion
) -> None:
    server = start(configuration(authority.issue("server"), authority.certificate))
    context = client(authority, version, authority.issue("client", names=NAMES))
    answer, resumed, session = ping(server, context)
    assert OK in answer
    assert not resumed
    answer, resumed, _ = ping(server, context, session)
    assert OK in answer
    assert resumed
    wait_until(lambda: server.process.log.count("identity=airflow") == 2, "both calls in the log", DEADLINE)
    stranger = client(authority, version, authority.issue("nobody", names=[]))
    _, _, session = ping(server, stranger)
    answer, resumed, _ = ping(server, stranger, session)
    assert UNAUTHENTICATED in answer
    assert resumed


@posix_only
@pytest.mark.parametrize("version", VERSIONS)
def test_no_session_is_resumed_under_other_authorities(
    start: Start, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    other_directory = tmp_path / "other"
    other_directory.mkdir()
    other = Authority(other_directory, "other")
    ca = tmp_path / "clients.pem"
    ca.write_bytes(authority.certificate.read_bytes())
    server = start(configuration(authority.issue("server"), ca))
    context = client(authority, version, authority.issue("client", names=NAMES))
    _, _, session = ping(server, context)
    replace(ca, other.certificate.read_bytes())
    server.reload()
    assert not is_served(server, context, session)
    replace(ca, authority.certificate.read_bytes() + other.certificate.read_bytes())
    server.reload()
    answer, resumed, _ = ping(server, context, session)
    assert OK in answer
    assert not resumed


@posix_only
@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_keeps_its_chain(
    start: Start, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """After a change of authorities, every certificate's way to one is looked for by the server itself."""
    root_directory = tmp_path / "root"
    root_directory.mkdir()
    root = Authority(root_directory, "root")
    ca = tmp_path / "clients.pem"
    ca.write_bytes(authority.certificate.read_bytes())
    server = start(configuration(authority.issue("server"), ca))
    replace(ca, root.certificate.read_bytes())
    server.reload()
    intermediate = root.intermediate("intermediate")
    context = client(authority, version, intermediate.issue("leaf", names=NAMES), intermediate.certificate)
    answer, _, session = ping(server, context)
    assert OK in answer
    answer, resumed, _ = ping(server, context, session)
    assert resumed
    assert OK in answer
