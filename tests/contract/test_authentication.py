"""Bearer tokens."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from .client import Client, bearer, command, refused
from .commands import COMMANDS
from .waiting import wait_until

TOKEN, OTHER_TOKEN = "secret-prod-token", "an;other#token%with(marks)"

MISSING = "missing Authorization header"
WRONG_SCHEME = "Authorization header must use 'Bearer' scheme"
INVALID = "invalid bearer token"


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(f"[auth]\nairflow-prod = {TOKEN}\nbackup = {OTHER_TOKEN}\n")


CALLS = {
    "Ping": lambda client: client.ping(),
    "GetStatus": lambda client: client.status(),
    "RemCmd": lambda client: client.run("true"),
    "RemCmdStrm": lambda client: list(client.stream([command("true")])),
}
every_method = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
Call = Callable[[Client], object]


@every_method
@pytest.mark.parametrize("token", [TOKEN, OTHER_TOKEN])
def test_a_valid_token_is_let_in(server, connect, call: Call, token: str) -> None:
    """Bearer tokens: authorization: Bearer TOKEN."""
    call(connect(server.target, bearer(token)))


@every_method
def test_a_missing_header_is_unauthenticated(server, connect, call: Call) -> None:
    """All failures are UNAUTHENTICATED: missing Authorization header"""
    with refused(grpc.StatusCode.UNAUTHENTICATED, MISSING):
        call(connect(server.target))


@every_method
@pytest.mark.parametrize(
    "value", [f"Basic {TOKEN}", TOKEN, f"Bearer{TOKEN}", "", "Bearer", f"Token Bearer {TOKEN}"]
)
def test_another_scheme_is_unauthenticated(server, connect, call: Call, value: str) -> None:
    """Authorization header must use 'Bearer' scheme"""
    with refused(grpc.StatusCode.UNAUTHENTICATED, WRONG_SCHEME):
        call(connect(server.target, [("authorization", value)]))


@every_method
@pytest.mark.parametrize(
    "token", ["wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "airflow-prod", "x" * 4000]
)
def test_a_wrong_token_is_unauthenticated(server, connect, call: Call, token: str) -> None:
    """invalid bearer token"""
    with refused(grpc.StatusCode.UNAUTHENTICATED, INVALID):
        call(connect(server.target, bearer(token)))


def test_a_refused_call_runs_nothing(server, connect, tmp_path) -> None:
    """authentication (before the handler runs)"""
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        connect(server.target).run(f": >{tmp_path}/ran")
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        list(connect(server.target, bearer("wrong")).stream([command(f": >{tmp_path}/ran")]))
    connect(server.target, bearer(TOKEN)).run("sleep 0.1")
    assert not (tmp_path / "ran").exists()


@every_method
@pytest.mark.parametrize(("token", "identity"), [(TOKEN, "airflow-prod"), (OTHER_TOKEN, "backup")])
def test_the_identity_is_logged_for_each_call(server, connect, call: Call, token: str, identity: str) -> None:
    """the verified identity is logged for each call"""

    def lines() -> int:
        return sum(identity in line for line in server.log.splitlines())

    client = connect(server.target, bearer(token))
    for _ in range(2):
        before = lines()
        call(client)
        wait_until(lambda before=before: lines() > before, "the log entry")


def test_no_token_is_logged(server, connect) -> None:
    """No handler ever sees the raw token: neither a valid nor an invalid one reaches the log."""
    connect(server.target, bearer(TOKEN)).run("true")
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        connect(server.target, bearer("an-invalid-token")).run("true")
    connect(server.target, bearer(TOKEN)).run("true", src="logged-last")
    wait_until(lambda: "logged-last" in server.log, "the last log entry")
    assert TOKEN not in server.log
    assert "an-invalid-token" not in server.log


def test_no_token_reaches_a_command(server, connect) -> None:
    """No handler ever sees the raw token: nor does a command."""
    result = connect(server.target, bearer(TOKEN)).run("env; tr '\\0' ' ' </proc/$PPID/cmdline")
    assert result.rc == 0
    assert TOKEN not in result.out


@pytest.mark.parametrize("metadata", [(), bearer("whatever"), [("authorization", "Basic x")]])
def test_without_auth_every_caller_is_permitted(client: Client, metadata) -> None:
    """Without [auth] every caller is permitted and a token that is sent is ignored."""
    client = client.with_metadata(metadata)
    client.ping()
    assert client.status().rc == 0
    assert client.run(COMMANDS.exit(0)).rc == 0
    assert [answer.rc for answer in client.stream([command(COMMANDS.exit(0))])] == [0]
