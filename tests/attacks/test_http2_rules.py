"""Each rule of HTTP/2 that a client may break, over a connection of its own to one server.

gRPC's C core overlooks about half of them, so that there is nothing to test of the transport that is its.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from remsvc_proto import RemSvc_pb2
from remsvc_proto.RemSvc_pb2_grpc import RemSvcStub
from tests.attacks.abuses import PING_PATH
from tests.attacks.conftest import AUTH, METADATA, TOKEN, good_client, raw
from tests.attacks.http2_rules import BEGINNINGS, MOST_STREAMS, RULES, Outcome, Rule
from tests.attacks.raw_http2 import (
    ACK,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    RawPeer,
    frame,
    message,
)
from tests.conftest import DEADLINE, Serve, ServerProcess

pytestmark = pytest.mark.own_http2

# What is sent after a rule was broken: whether it is answered says whether the connection goes on.
_NEXT = 2 * MOST_STREAMS + 101
_GREETING = PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0)
_SHORT = 1000


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module(f"{AUTH}[limits]\nmax_streams = {MOST_STREAMS}\n")


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[RemSvcStub]:
    with good_client(server) as stub:
        yield stub


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.name) for rule in RULES])
def test_a_broken_rule(server: ServerProcess, stub: RemSvcStub, rule: Rule) -> None:
    broken = rule.broken()
    assert outcome(server, _GREETING, [broken]) is rule.outcome
    if len(broken) < _SHORT:
        assert outcome(server, _GREETING, [bytes((octet,)) for octet in broken]) is rule.outcome
    assert stub.Ping(RemSvc_pb2.PingMsg(seq=7), metadata=METADATA, timeout=DEADLINE).seq == 7


def test_a_peer_that_speaks_something_else_is_told_so(server: ServerProcess) -> None:
    protocol_error = 1  # RFC 9113, section 3.4
    with raw(server) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        ends = [int.from_bytes(got.payload[4:8], "big") for got in peer.frames() if got.kind == GOAWAY]
    assert ends == [protocol_error]


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.name) for rule in BEGINNINGS])
def test_what_begins_no_connection(server: ServerProcess, stub: RemSvcStub, rule: Rule) -> None:
    assert outcome(server, b"", [rule.broken()]) is rule.outcome
    assert stub.Ping(RemSvc_pb2.PingMsg(seq=7), metadata=METADATA, timeout=DEADLINE).seq == 7


def test_the_server_has_not_failed(server: ServerProcess) -> None:
    """Comes last: after all the others."""
    assert "Traceback" not in server.log
    assert "failed" not in server.log


def outcome(server: ServerProcess, greeting: bytes, pieces: list[bytes]) -> Outcome:
    """What comes of these pieces, sent one by one after the greeting."""
    with raw(server) as peer:
        with suppress(OSError):  # it may have been closed already
            peer.send(greeting)
            for piece in pieces:
                peer.send(piece)
            peer.call(_NEXT, PING_PATH, ("authorization", f"Bearer {TOKEN}"), body=message())
        return _seen(peer)


def _seen(peer: RawPeer) -> Outcome:
    found = Outcome.NOTHING
    for got in peer.frames():
        if got.kind == GOAWAY:
            assert got.payload[4:8] != bytes(4), "an end without an error"
            peer.wait_closed()
            break
        if got.kind == RST_STREAM:
            assert got.payload != bytes(4), "a reset without an error"
            found = Outcome.STREAM
        elif got.kind == HEADERS and got.stream == _NEXT and got.flags & END_STREAM:
            assert b"grpc-status: 0" in got.text
            return found
    return Outcome.CONNECTION
