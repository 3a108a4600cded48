"""Mutual TLS: the certificate's alternative names say who calls, and nothing else of it does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import grpc
import pytest
from cryptography import x509

from tests.conftest import Serve
from tests.contract.certificates import Authority, Identity
from tests.contract.client import Client, bearer, refused
from tests.contract.jobs import spec
from tests.contract.waiting import wait_until

from .conftest import DEADLINE, Call, RunningServer, Start, posix_only, replace, trusting

pytestmark = pytest.mark.timeout(300)

NOBODY = "the client certificate stands for no identity"
DIFFERENT = "the token and the client certificate are of different identities"

MAPPING = """[certificates]
spiffe://corp/airflow = airflow
Airflow.Example.org = airflow
backup.example.org = backup
Ops@Example.org = ops
urn:x:a=b = equals
"""


def mutual_tls(authority: Authority, identity: Identity, rest: str, server: str) -> str:
    """A configuration; ``rest`` follows, ``server`` is in [server]."""
    return (
        f"[server]\nport = 0\nhost = 127.0.0.1\n{server}[tls]\nenabled = true\n"
        f"cert = {identity.certificate}\nkey = {identity.key}\nca = {authority.certificate}\n{rest}"
    )


@pytest.fixture
def begin(start: Start, authority: Authority):
    """``begin(rest, server="")``: a server with mutual TLS, whose files a test may change."""
    identity = authority.issue("server")

    def begin_server(rest: str = MAPPING, server: str = "") -> RunningServer:
        return start(mutual_tls(authority, identity, rest, server))

    return begin_server


@pytest.fixture(scope="module")
def shared_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def shared(serve_module: Serve, shared_authority: Authority):
    """``shared(rest, server="")``: one server for all tests that ask alike, and change nothing."""
    identity = shared_authority.issue("server")

    @cache
    def begin_server(rest: str = MAPPING, server: str = "") -> RunningServer:
        process = serve_module(mutual_tls(shared_authority, identity, rest, server))
        return RunningServer(process, process.stderr_path.with_suffix(".ini"))

    return begin_server


def caller_name(server: RunningServer, client: Client) -> str:
    """Who the server takes the client for."""
    marker = f"marker-{server.process.log.count('marker-')}-{id(client)}"
    client.run("true", src=marker)

    def lines() -> list[str]:
        return [line for line in server.process.log.splitlines() if marker in line]

    (line,) = wait_until(lines, "the log", DEADLINE)
    return line.partition("identity=")[2].partition(" ")[0]


def with_names(authority: Authority, names: Sequence[x509.GeneralName], common_name: str = "cn") -> Identity:
    return authority.issue(f"client{id(names)}", names=names, common_name=common_name)


DNS, URI, EMAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name


@pytest.mark.parametrize(
    ("names", "identity"),
    [
        ([URI("spiffe://corp/airflow")], "airflow"),
        ([DNS("airflow.example.org")], "airflow"),
        ([DNS("AIRFLOW.example.ORG")], "airflow"),
        ([EMAIL("Ops@example.ORG")], "ops"),
        ([URI("urn:x:a=b")], "equals"),
        ([DNS("else.example.org"), DNS("backup.example.org"), URI("x:y")], "backup"),
        ([URI("spiffe://corp/airflow"), DNS("airflow.example.org")], "airflow"),
    ],
)
def test_a_name_gives_the_identity(
    shared, call: Call, shared_authority: Authority, names: list[x509.GeneralName], identity: str
) -> None:
    server = shared()
    certificate = with_names(shared_authority, names)
    client = call(server, credentials=trusting(shared_authority, certificate)).client
    assert caller_name(server, client) == identity


@pytest.mark.parametrize(
    "names",
    [
        [],
        [DNS("nobody.example.org")],
        [DNS("spiffe://corp/airflow")],  # not that kind
        [URI("airflow.example.org")],
        [EMAIL("ops@example.org")],  # another letter before the @
        [URI("spiffe://corp/Airflow")],
        [URI("spiffe://corp/airflow/")],
        [URI("spiffe://corp/airflow%00")],
        [DNS("airflow.example.org.")],
        [DNS("*.example.org")],
        [DNS("airflow.example.org\0.evil.example")],
        [DNS("airflow.example.org\n")],
        [DNS(" airflow.example.org")],
        [x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))],
        [x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "airflow")]))],
    ],
    ids=repr,
)
def test_a_certificate_that_maps_to_nobody_is_refused(
    shared, call: Call, shared_authority: Authority, names: list[x509.GeneralName]
) -> None:
    """Though the authority has signed it, and though its common name is that of an identity."""
    certificate = with_names(shared_authority, names, "airflow")
    caller = call(shared(), credentials=trusting(shared_authority, certificate))
    for attempt in (
        lambda: caller.client.ping(),
        lambda: list(caller.client.stream([])),
        lambda: caller.jobs.create(spec("true")),
        lambda: caller.client.with_metadata(bearer("ignored")).ping(),
    ):
        with refused(grpc.StatusCode.UNAUTHENTICATED, NOBODY):
            attempt()


def test_names_of_different_identities_are_refused(shared, call: Call, shared_authority: Authority) -> None:
    both = with_names(shared_authority, [URI("spiffe://corp/airflow"), DNS("backup.example.org")])
    with refused(grpc.StatusCode.UNAUTHENTICATED, starts="the client certificate's names"):
        call(shared(), credentials=trusting(shared_authority, both)).client.ping()


def test_an_emptied_section_permits_nobody(begin, call: Call, authority: Authority) -> None:
    """It does not fall back to common names."""
    server = begin("[certificates]\n; spiffe://corp/airflow = airflow\n")
    with refused(grpc.StatusCode.UNAUTHENTICATED, NOBODY):
        call(
            server,
            credentials=trusting(authority, authority.issue("airflow", names=[URI("spiffe://corp/airflow")])),
        ).client.ping()


def test_without_the_section_the_common_name_is_the_identity(begin, call: Call, authority: Authority) -> None:
    server = begin("")
    client = call(server, credentials=trusting(authority, with_names(authority, [], "by-name"))).client
    assert caller_name(server, client) == "by-name"
    evil = with_names(authority, [], "a\x1b[2Jb")
    with refused(grpc.StatusCode.UNAUTHENTICATED, NOBODY):
        call(server, credentials=trusting(authority, evil)).client.ping()


AUTH = "[auth]\nairflow = t-airflow\nbackup = t-backup\n"


@pytest.mark.parametrize(
    ("required", "token", "name", "expected"),
    [
        # any: either; a token that is sent counts, and a wrong one is not made good by a certificate
        ("any", "t-backup", "", "backup"),
        ("any", "", "spiffe://corp/airflow", "airflow"),
        ("any", "t-backup", "spiffe://corp/airflow", "backup"),
        ("any", "wrong", "spiffe://corp/airflow", None),
        ("any", "", "spiffe://corp/nobody", None),
        ("token", "t-backup", "spiffe://corp/airflow", "backup"),
        ("token", "", "spiffe://corp/airflow", None),
        ("certificate", "", "spiffe://corp/airflow", "airflow"),
        ("certificate", "t-backup", "spiffe://corp/airflow", "airflow"),
        ("certificate", "wrong", "spiffe://corp/airflow", "airflow"),
        ("certificate", "t-backup", "", None),
        ("both", "t-airflow", "spiffe://corp/airflow", "airflow"),
        ("both", "t-backup", "spiffe://corp/airflow", DIFFERENT),
        ("both", "", "spiffe://corp/airflow", "missing Authorization header"),
        ("both", "wrong", "spiffe://corp/airflow", "invalid bearer token"),
        ("both", "t-airflow", "", NOBODY),
    ],
)
def test_what_is_required(
    shared,
    call: Call,
    shared_authority: Authority,
    required: str,
    token: str,
    name: str,
    expected: str | None,
) -> None:
    server = shared(MAPPING + AUTH, f"authentication = {required}\n")
    identity = shared_authority.issue("client", names=[URI(name)] if name else [])
    client = call(server, token, trusting(shared_authority, identity)).client
    if expected is None or " " in expected:
        with refused(grpc.StatusCode.UNAUTHENTICATED, expected):
            client.ping()
        with refused(grpc.StatusCode.UNAUTHENTICATED, expected):
            list(client.stream([]))
    else:
        assert caller_name(server, client) == expected


@posix_only
def test_unmapping_ends_what_is_open(begin, call: Call, authority: Authority) -> None:
    server = begin()
    airflow = trusting(authority, with_names(authority, [URI("spiffe://corp/airflow")]))
    backup = trusting(authority, with_names(authority, [DNS("backup.example.org")]))
    streams = [call(server, credentials=who).client.open_stream() for who in (airflow, backup)]
    for stream in streams:
        stream.send("true")
        next(stream)
    server.write(server.config.read_text().replace("spiffe://corp/airflow = airflow\n", ""))
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        next(streams[0])
    streams[1].send("echo on")
    assert next(streams[1]).out == "on\n"
    for stream in streams:
        stream.half_close()


@posix_only
def test_an_authority_that_is_no_longer_trusted_ends_open_connections(
    begin, call: Call, authority: Authority, tmp_path
) -> None:
    """TLS checked their certificates when they connected, which may be months ago."""
    new_directory = tmp_path / "new"
    new_directory.mkdir()
    new = Authority(new_directory, "new")
    server = begin()
    names = [URI("spiffe://corp/airflow")]
    old_client = call(server, credentials=trusting(authority, authority.issue("old", names=names))).client
    stream = old_client.open_stream()
    stream.send("true")
    next(stream)
    old_certificate = authority.certificate.read_bytes()
    replace(authority.certificate, old_certificate + new.certificate.read_bytes())
    server.reload()  # both are trusted: nothing changes for the old
    stream.send("echo on")
    assert next(stream).out == "on\n"
    key, certificate = new.issue("client", names=names).pem
    credentials = grpc.ssl_channel_credentials(old_certificate, key, certificate)
    call(server, credentials=credentials).client.ping()
    replace(authority.certificate, new.certificate.read_bytes())
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        next(stream)
    stream.half_close()
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        old_client.ping()
    call(server, credentials=credentials).client.ping()


def test_a_strangers_certificate_with_the_right_name_is_refused(
    begin, call: Call, authority: Authority, tmp_path
) -> None:
    stranger_directory = tmp_path / "stranger"
    stranger_directory.mkdir()
    key, certificate = Authority(stranger_directory).issue("x", names=[URI("spiffe://corp/airflow")]).pem
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
    with refused(grpc.StatusCode.UNAVAILABLE):
        call(begin(), credentials=credentials).client.ping(timeout=30)


@posix_only
def test_a_chain_is_followed_to_the_new_authority(begin, call: Call, authority: Authority, tmp_path) -> None:
    """Of a connection made before the authority changed: an intermediate one leads to it."""
    root_directory = tmp_path / "root"
    root_directory.mkdir()
    root = Authority(root_directory, "root")
    server = begin()
    authority_certificate = authority.certificate.read_bytes()
    replace(authority.certificate, authority_certificate + root.certificate.read_bytes())
    server.reload()
    intermediate = root.intermediate("intermediate")
    identity = intermediate.issue("leaf", names=[URI("spiffe://corp/airflow")])
    chain = identity.certificate.read_bytes() + intermediate.certificate.read_bytes()
    credentials = grpc.ssl_channel_credentials(authority_certificate, identity.key.read_bytes(), chain)
    client = call(server, credentials=credentials).client
    assert caller_name(server, client) == "airflow"
    stream = client.open_stream()
    stream.send("true")
    next(stream)
    replace(authority.certificate, root.certificate.read_bytes())
    server.reload()
    stream.send("echo on")
    assert next(stream).out == "on\n"
    client.ping()
    replace(authority.certificate, authority_certificate)
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        next(stream)
    stream.half_close()


def test_what_is_open_ends_when_the_certificate_expires(begin, call: Call, authority: Authority) -> None:
    """On a connection that was made while it was valid."""
    server = begin()
    for seconds in (6, 20, 40):  # a slow machine needs longer to connect
        identity = authority.issue(
            f"short{seconds}", names=[URI("spiffe://corp/airflow")], valid_days=seconds / 86400
        )
        client = call(server, credentials=trusting(authority, identity)).client
        stream = client.open_stream()
        try:
            stream.send("true")
            assert next(stream).rc == 0
        except grpc.RpcError:
            stream.half_close()
            continue
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            next(stream)
        stream.half_close()
        with refused(grpc.StatusCode.UNAUTHENTICATED, "the client certificate has expired"):
            client.ping()
        return
    pytest.fail("no stream could be opened in time")
