"""``[tls] client_certificates = optional``: by certificate, or by token, and never by nothing."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from cryptography import x509

from tests.contract.certificates import Authority
from tests.contract.client import refused
from tests.contract.waiting import wait_until

from .conftest import DEADLINE, Call, RunningServer, Start, posix_only, trusting

pytestmark = [pytest.mark.timeout(300), pytest.mark.own_http2]

NAMES = [x509.UniformResourceIdentifier("spiffe://corp/airflow")]
MAPPING = "[certificates]\nspiffe://corp/airflow = airflow\n"
TOKENS = "[auth]\nbackup = t-backup\n"


@pytest.fixture
def begin(start: Start, authority: Authority):
    """``begin(rest, server="")``: a server that asks for certificates, and takes a client without."""
    identity = authority.issue("server")

    def begin_server(rest: str, server: str = "") -> RunningServer:
        return start(
            f"[server]\nport = 0\nhost = 127.0.0.1\ntransport = http2\n{server}[tls]\nenabled = true\n"
            f"cert = {identity.certificate}\nkey = {identity.key}\nca = {authority.certificate}\n"
            f"client_certificates = optional\n{rest}"
        )

    return begin_server


def test_either_is_enough(begin, call: Call, authority: Authority) -> None:
    server = begin(MAPPING + TOKENS)
    with_certificate = trusting(authority, authority.issue("client", names=NAMES))
    call(server, credentials=with_certificate).client.ping()
    call(server, "t-backup", trusting(authority)).client.ping()
    call(server, "t-backup", with_certificate).client.ping()
    wait_until(lambda: server.process.log.count("identity=backup") == 2, "the log", DEADLINE)
    assert server.process.log.count("identity=airflow") == 1


def test_nothing_is_not_enough(begin, call: Call, authority: Authority) -> None:
    server = begin(MAPPING + TOKENS)
    with refused(grpc.StatusCode.UNAUTHENTICATED, "missing Authorization header"):
        call(server, credentials=trusting(authority)).client.ping()
    with refused(grpc.StatusCode.UNAUTHENTICATED, "invalid bearer token"):
        call(server, "wrong", trusting(authority)).client.ping()


@pytest.mark.parametrize("rest", ["", MAPPING])
def test_without_tokens_nobody_is_let_in_without_a_certificate(
    begin, call: Call, authority: Authority, rest: str
) -> None:
    server = begin(rest)
    with refused(grpc.StatusCode.UNAUTHENTICATED, "expected a client certificate"):
        call(server, credentials=trusting(authority)).client.ping()
    with refused(grpc.StatusCode.UNAUTHENTICATED, "expected a client certificate"):
        call(server, "ignored", trusting(authority)).client.ping()
    call(server, credentials=trusting(authority, authority.issue("c", names=NAMES))).client.ping()


@pytest.mark.parametrize("required", ["certificate", "both"])
def test_where_a_certificate_is_required_it_still_is(
    begin, call: Call, authority: Authority, required: str
) -> None:
    server = begin(MAPPING + TOKENS, f"authentication = {required}\n")
    with refused(grpc.StatusCode.UNAUTHENTICATED, "expected a client certificate"):
        call(server, "t-backup", trusting(authority)).client.ping()


def test_one_that_is_presented_is_checked(begin, call: Call, authority: Authority, tmp_path: Path) -> None:
    stranger_directory = tmp_path / "stranger"
    stranger_directory.mkdir()
    stranger = Authority(stranger_directory).issue("x", names=NAMES)
    with refused(grpc.StatusCode.UNAVAILABLE):
        call(begin(MAPPING + TOKENS), "t-backup", trusting(authority, stranger)).client.ping(timeout=30)


@posix_only
def test_it_cannot_be_changed_by_a_reload(begin, call: Call, authority: Authority) -> None:
    server = begin(MAPPING + TOKENS)
    server.write(server.config.read_text().replace("= optional", "= required"))
    server.reload_fails()
    assert "[tls] client_certificates" in server.process.log
    call(server, "t-backup", trusting(authority)).client.ping()
