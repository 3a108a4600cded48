"""Keys of all kinds: what cannot be served is told before anything is served, and who cannot connect."""

from __future__ import annotations

import codecs
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from remsvc.server.config import check_config
from tests.attacks.raw_http2 import RawPeer
from tests.contract.certificates import Authority, Identity
from tests.contract.client import refused

from .conftest import DEADLINE, Call, RunningServer, Start, posix_only, replace, trusting

pytestmark = pytest.mark.timeout(300)

KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpoolP256r1": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
}
FOR_EVERYBODY = ("P-256", "P-384", "RSA")
NOT_FOR_GRPC = ("P-521", "Ed25519", "Ed448", "RSA-PSS")
FOR_NOBODY = ("P-224", "secp256k1")  # with brainpool, it depends on OpenSSL's version
REMEDY = "take a key of one of the kinds P-256, P-384, RSA"

Issue = Callable[[str], Identity]


@pytest.fixture
def issue(authority: Authority, tmp_path: Path) -> Issue:
    """``issue(kind)``: a server's certificate with a key of this kind."""

    def issue_identity(kind: str) -> Identity:
        if kind != "RSA-PSS":
            return authority.issue("server", host="localhost", key=KEYS[kind]())
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("needs the program openssl to make such a certificate")
        identity = Identity(tmp_path / "server.pem", tmp_path / "server.key")
        arguments = ["req", "-x509", "-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-nodes"]
        arguments += ["-keyout", str(identity.key), "-out", str(identity.certificate), "-subj", "/CN=server"]
        subprocess.run([openssl, *arguments, "-days", "2"], check=True, capture_output=True)
        identity.key.chmod(0o600)
        return identity

    return issue_identity


def configuration(identity: Identity, transport: str = "http2") -> str:
    return (
        f"[server]\nport = 0\nhost = 127.0.0.1\ntransport = {transport}\n[tls]\nenabled = true\n"
        f"cert = {identity.certificate}\nkey = {identity.key}\n"
    )


def check(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    """The problems that check-config tells of, and the warnings."""
    path = tmp_path / "checked.ini"
    path.write_text(text)
    return check_config(path)


def encrypted(server: RunningServer) -> str | None:
    """The version of TLS that OpenSSL's client gets."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    process = server.process
    with RawPeer(process.host, process.port, tls=context, timeout=DEADLINE) as peer:
        assert isinstance(peer.socket, ssl.SSLSocket)
        return peer.socket.version()


@pytest.mark.parametrize("transport", ["http2", "grpc"])
@pytest.mark.parametrize("kind", FOR_EVERYBODY)
def test_kinds_for_everybody(
    start: Start, call: Call, authority: Authority, issue: Issue, tmp_path: Path, kind: str, transport: str
) -> None:
    text = configuration(issue(kind), transport)
    problems, warnings = check(tmp_path, text)
    assert problems == []
    assert not [line for line in warnings if "kind" in line]
    server = start(text)
    options = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    target = f"localhost:{server.process.port}"
    with grpc.secure_channel(target, options, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        grpc.channel_ready_future(channel).result(DEADLINE)
    assert encrypted(server) == "TLSv1.3"


@pytest.mark.own_http2
@pytest.mark.parametrize("kind", NOT_FOR_GRPC)
def test_kinds_that_grpc_cannot_use(
    start: Start, call: Call, authority: Authority, issue: Issue, tmp_path: Path, kind: str
) -> None:
    """Our own transport serves them, and says who cannot connect; gRPC's does not start."""
    identity = issue(kind)
    problems, warnings = check(tmp_path, configuration(identity))
    assert problems == []
    (line,) = [line for line in warnings if "kind" in line]
    for words in (str(identity.certificate), f"kind {kind}: clients by gRPC's own library", REMEDY):
        assert words in line
    server = start(configuration(identity))
    assert f"kind {kind}: clients by gRPC's own library" in server.process.log
    assert encrypted(server) == "TLSv1.3"
    with refused(grpc.StatusCode.UNAVAILABLE):
        call(server, credentials=trusting(authority)).client.ping(timeout=30)
    (problem,) = check(tmp_path, configuration(identity, "grpc"))[0]
    for words in (f"[tls] cert = {identity.certificate}", "transport = grpc", f"kind {kind}", REMEDY):
        assert words in problem


@pytest.mark.parametrize("transport", ["http2", "grpc"])
@pytest.mark.parametrize("kind", FOR_NOBODY)
def test_kinds_that_nobody_can_use(issue: Issue, tmp_path: Path, kind: str, transport: str) -> None:
    """They can be loaded; no handshake succeeds with them."""
    identity = issue(kind)
    (problem,) = check(tmp_path, configuration(identity, transport))[0]
    for words in (f"[tls] cert = {identity.certificate}", "TLS cannot use its key", f"kind {kind}", REMEDY):
        assert words in problem


def unusual(tmp_path: Path) -> Identity:
    """A certificate of the kind RSA that OpenSSL can use and BoringSSL cannot: its exponent is large."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the program openssl to make such a certificate")
    identity = Identity(tmp_path / "unusual.pem", tmp_path / "unusual.key")
    options = ["-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:1099511627791"]
    arguments = ["req", "-x509", "-newkey", "rsa", *options, "-nodes", "-subj", "/CN=server", "-days", "2"]
    arguments += ["-keyout", str(identity.key), "-out", str(identity.certificate)]
    subprocess.run([openssl, *arguments], check=True, capture_output=True)
    identity.key.chmod(0o600)
    return identity


def test_what_grpcs_own_library_cannot_use_is_found_by_trying(tmp_path: Path) -> None:
    """Whatever its kind: the files are checked by what serves them."""
    identity = unusual(tmp_path)
    assert check(tmp_path, configuration(identity))[0] == []
    (problem,) = check(tmp_path, configuration(identity, "grpc"))[0]
    for words in (f"[tls] cert = {identity.certificate}", "gRPC's own library cannot use it", REMEDY):
        assert words in problem


@posix_only
def test_a_reload_does_not_take_what_grpcs_library_cannot_use(
    start: Start, call: Call, authority: Authority, tmp_path: Path
) -> None:
    """It said it had reloaded, and served the old certificate, or nobody."""
    identity = authority.issue("good")
    server = start(configuration(identity, "grpc"))
    bad = unusual(tmp_path)
    replace(identity.certificate, bad.certificate.read_bytes())
    replace(identity.key, bad.key.read_bytes())
    server.reload_fails()
    assert "gRPC's own library cannot use it" in server.process.log
    call(server, credentials=trusting(authority)).client.ping()


def test_a_brainpool_key_is_told_of(start: Start, issue: Issue, tmp_path: Path) -> None:
    text = configuration(issue("brainpoolP256r1"))
    problems, warnings = check(tmp_path, text)
    (line,) = [line for line in (*problems, *warnings) if "kind" in line]
    assert "kind brainpoolP256r1" in line
    assert REMEDY in line
    if not problems:
        assert encrypted(start(text))


@posix_only
def test_a_key_that_cannot_be_used_is_not_taken_by_a_reload(
    start: Start, call: Call, authority: Authority, issue: Issue
) -> None:
    identity = authority.issue("good")
    server = start(configuration(identity))
    bad = issue("secp256k1")
    replace(identity.certificate, bad.certificate.read_bytes())
    replace(identity.key, bad.key.read_bytes())
    server.reload_fails()
    assert "kind secp256k1" in server.process.log
    call(server, credentials=trusting(authority)).client.ping()


@pytest.mark.parametrize("transport", ["http2", "grpc"])
@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
@pytest.mark.parametrize("name", ["cert", "key", "ca"])
def test_a_byte_order_mark_is_refused(
    authority: Authority, tmp_path: Path, name: str, mark: bytes, transport: str
) -> None:
    """Neither library can read a file that begins with one."""
    identity = authority.issue("server")
    path = {"cert": identity.certificate, "key": identity.key, "ca": authority.certificate}[name]
    path.write_bytes(mark + path.read_bytes())
    text = f"{configuration(identity, transport)}ca = {authority.certificate}\n"
    (problem,) = check(tmp_path, text)[0]
    assert f"[tls] {name} = {path}: begins with a byte order mark" in problem
