"""``[limits]``: each is held, whichever grpcio is installed, and whoever keeps to them is served."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from remsvc_proto import RemSvc_pb2
from tests.attacks import abuses
from tests.attacks.conftest import (
    AUTH,
    CREDENTIALS,
    METADATA,
    answer_to,
    eventually,
    good_client,
    greeted,
    raw,
    status_of,
)
from tests.attacks.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    call_headers,
    frame,
    header_block,
    message,
)
from tests.conftest import DEADLINE, Serve, ServerProcess

PING = RemSvc_pb2.PingMsg(seq=1)
_EXHAUSTED, _OK = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK


def ping(server: ServerProcess, **options: object) -> RemSvc_pb2.PongMsg:
    with good_client(server) as stub:
        return stub.Ping(PING, metadata=METADATA, timeout=DEADLINE, **options)


def crowd(stack: ExitStack, server: ServerProcess, count: int) -> None:
    """So many connections that are begun and left alone, as far as the server lets them."""
    for _ in range(count):
        peer = stack.enter_context(raw(server))
        with contextlib.suppress(OSError):
            peer.greet()
            peer.send(frame(SETTINGS, ACK, 0))


# Connections


@pytest.mark.parametrize("said", [b"", PREFACE[:5], PREFACE, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_a_connection_that_does_not_get_on_with_it_is_closed(serve: Serve, said: bytes) -> None:
    server = serve(f"{AUTH}[limits]\nhandshake_timeout_ms = 500\n")
    with raw(server) as peer:
        peer.send(said)
        peer.wait_closed()


def test_a_preface_byte_by_byte_is_not_waited_for(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nhandshake_timeout_ms = 500\n")
    with raw(server) as peer, pytest.raises(OSError):  # noqa: PT012
        for _ in range(round(DEADLINE / 0.1)):
            peer.send(b"P")
            time.sleep(0.1)


def test_settings_that_are_never_acknowledged_end_the_connection(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nhandshake_timeout_ms = 500\n")
    with raw(server) as peer:
        peer.greet()
        peer.wait_closed()


def test_a_connection_without_a_call_is_closed_and_a_client_does_not_notice(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nconnection_idle_ms = 300\n")
    with good_client(server) as stub, greeted(server) as peer:
        stub.Ping(PING, metadata=METADATA, timeout=DEADLINE)
        peer.wait_closed()
        eventually(lambda: not established(server))
        stub.Ping(PING, metadata=METADATA, timeout=DEADLINE)


def established(server: ServerProcess) -> int:
    connections = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in connections)


def test_there_are_never_more_connections_than_allowed(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nmax_connections = 10\n")
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(raw(server))
        eventually(lambda: established(server) <= 10)


def test_a_crowd_of_idle_connections_keeps_nobody_out(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nmax_connections = 10\n")
    with ExitStack() as stack:
        early = stack.enter_context(good_client(server))
        early.Ping(PING, metadata=METADATA, timeout=DEADLINE)
        waiting = stack.enter_context(good_client(server))
        held = waiting.RemCmdStrm(iter_until(stop := threading.Event()), metadata=METADATA, timeout=60)
        stack.callback(stop.set)
        assert next(held).rc == 0
        crowd(stack, server, 30)
        assert ping(server, wait_for_ready=True).seq == 1
        # Who was there before, and was not idle, has noticed nothing.
        stop.set()
        assert next(held).rc == 0
        eventually(lambda: "connections cut" in server.log)


@pytest.mark.own_http2
def test_every_connection_that_was_cut_is_told_of(serve: Serve) -> None:
    """The first at once, the others in one line a minute later, or when the server ends."""
    server = serve(f"{AUTH}[limits]\nmax_connections = 10\n")
    with ExitStack() as stack:
        crowd(stack, server, 40)
        eventually(lambda: established(server) <= 10)
        assert server.terminate() == 0
    told = re.findall(r"connections cut or refused count=(\d+)", server.log)
    assert sum(map(int, told)) >= 30
    assert len(told) <= 2


def iter_until(stop: threading.Event) -> Iterator[RemSvc_pb2.RemCmdMsg]:
    yield RemSvc_pb2.RemCmdMsg(cmd="true")
    assert stop.wait(DEADLINE)
    yield RemSvc_pb2.RemCmdMsg(cmd="true")


def test_more_connections_than_the_system_gives_files_for_are_not_promised(serve: Serve) -> None:
    server = serve(
        f"{AUTH}[limits]\nmax_connections = 100000\n", wrapper=("sh", "-c", 'ulimit -n 512; exec "$@"', "sh")
    )
    assert "max_connections = 100000: only 256, because the server may open 512 files" in server.log
    with ExitStack() as stack:
        crowd(stack, server, 400)
        with good_client(server) as stub:
            answer = stub.RemCmd(
                RemSvc_pb2.RemCmdMsg(cmd="echo served"),
                metadata=METADATA,
                timeout=DEADLINE,
                wait_for_ready=True,
            )
        assert answer.out == "served\n"


# Metadata and messages


@pytest.fixture(scope="module")
def small(serve_module: Serve) -> ServerProcess:
    return serve_module(
        f"{AUTH}[limits]\nmax_metadata_bytes = 4096\nmax_message_bytes = 10000\nrequest_timeout_ms = 4000\n"
    )


def test_metadata_up_to_the_limit_is_taken_and_no_more(small: ServerProcess) -> None:
    with good_client(small) as stub:

        def send(size: int) -> grpc.StatusCode:
            metadata = (*METADATA, ("x", "a" * size))
            return status_of(lambda: stub.Ping(PING, metadata=metadata, timeout=DEADLINE))

        assert send(3000) is _OK
        assert {send(size) for size in (4100, 5000, 20_000)} == {_EXHAUSTED}
        # Of what is longer still, no list is made: the connection ends.
        assert send(200_000) in (_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        eventually(lambda: send(3000) is _OK)


def test_the_limit_holds_for_a_peer_that_does_not_acknowledge_it(small: ServerProcess) -> None:
    """gRPC's own does not: it applies what the peer has acknowledged."""
    block = header_block([*call_headers(abuses.PING_PATH, CREDENTIALS), ("x", "a" * 12_000)])
    with raw(small) as peer:
        peer.greet()
        peer.send(frame(HEADERS, END_HEADERS, 1, block), frame(DATA, END_STREAM, 1, message()))
        assert b"metadata of" in answer_to(peer, 1)


def test_headers_without_an_end_are_cut_off(serve: Serve) -> None:
    server = serve(AUTH)
    process = psutil.Process(server.process.pid)
    ping(server)
    before = process.memory_info().rss
    block = header_block([("x", "a" * 15_000)])
    with raw(server) as peer:
        peer.greet()
        with pytest.raises(OSError):  # noqa: PT012
            peer.send(frame(HEADERS, 0, 1, header_block(call_headers(abuses.PING_PATH))))
            for _ in range(100_000):  # 1.5 GB
                peer.send(frame(CONTINUATION, 0, 1, block))
    assert process.memory_info().rss - before < 700e6
    ping(server)


def test_messages_up_to_the_limit_are_taken_and_no_more(small: ServerProcess) -> None:
    with good_client(small) as stub:

        def send(size: int) -> grpc.StatusCode:
            request = RemSvc_pb2.PingMsg(data=bytes(size))
            return status_of(lambda: stub.Ping(request, metadata=METADATA, timeout=DEADLINE))

        assert send(9000) is _OK
        assert {send(size) for size in (10_001, 100_000, 5_000_000)} == {_EXHAUSTED}
        assert send(9000) is _OK


@pytest.mark.parametrize("claimed", [10_001, 2**31, 2**32 - 1])
def test_a_message_that_claims_to_be_large_is_not_waited_for(small: ServerProcess, claimed: int) -> None:
    with greeted(small) as peer:
        peer.call(1, abuses.PING_PATH, CREDENTIALS)
        peer.send(frame(DATA, 0, 1, message(b"x", claimed=claimed)))
        answer = answer_to(peer, 1)
        # grpcio 1.67 looks at the length only once the message is whole.
        assert b"larger than max" in answer or b"did not arrive" in answer


# Calls


def test_more_streams_than_allowed_are_refused_on_one_connection(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nmax_streams = 5\n")
    with greeted(server) as peer:
        for stream in range(1, 21, 2):
            peer.call(stream, abuses.STREAM_PATH, CREDENTIALS)
        begun, refused = set(), set()
        for got in peer.frames():
            if got.kind == HEADERS:
                begun.add(got.stream)
            elif got.kind == RST_STREAM:
                refused.add(got.stream)
            if got.kind == GOAWAY or len(refused) == 5:
                break  # who has acknowledged the limit breaks a rule of HTTP/2: the connection may end
        assert begun <= {1, 3, 5, 7, 9}
        assert refused <= {11, 13, 15, 17, 19}
        ping(server)  # another connection


def test_streams_beyond_the_limit_before_it_was_acknowledged_are_refused_one_by_one(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nmax_streams = 5\n")
    with raw(server) as peer:
        peer.greet()
        for stream in range(1, 21, 2):
            peer.call(stream, abuses.STREAM_PATH, CREDENTIALS)
        resets = (got.stream for got in peer.frames() if got.kind == RST_STREAM)
        assert set(itertools.islice(resets, 5)) == {11, 13, 15, 17, 19}


def test_more_calls_than_allowed_are_refused_at_once_until_one_ends(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nmax_calls = 3\n")
    with good_client(server) as stub:
        stops = [threading.Event() for _ in range(3)]
        held = [stub.RemCmdStrm(iter_until(stop), metadata=METADATA, timeout=60) for stop in stops]
        assert [next(call).rc for call in held] == [0, 0, 0]
        with pytest.raises(grpc.RpcError) as caught:
            stub.Ping(PING, metadata=METADATA, timeout=DEADLINE)
        assert caught.value.code() is _EXHAUSTED
        details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        retry = error_details_pb2.RetryInfo()
        assert status_pb2.Status.FromString(details).details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
        stops[0].set()
        assert [answer.rc for answer in held[0]] == [0]
        eventually(lambda: status_of(lambda: stub.Ping(PING, metadata=METADATA, timeout=DEADLINE)) is _OK)
        for stop in stops[1:]:
            stop.set()


def test_strangers_that_watch_the_health_take_nothing_from_others(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nmax_calls = 10\n")
    with grpc.insecure_channel(server.target) as channel, good_client(server) as stub:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        watches = [watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(20)]
        codes = {status_of(lambda call=call: next(call)) for call in watches}  # type: ignore[misc]
        assert codes == {_OK, _EXHAUSTED}
        stub.Ping(PING, metadata=METADATA, timeout=DEADLINE)
        check = health_pb2_grpc.HealthStub(channel).Check
        for metadata in (None, METADATA):
            assert check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=DEADLINE).status


def test_a_request_that_does_not_arrive_is_not_waited_for(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nrequest_timeout_ms = 1500\nmax_calls = 5\n")
    with greeted(server) as peer:
        for stream in range(1, 11, 2):
            peer.call(stream, abuses.PING_PATH, CREDENTIALS)
            peer.send(frame(DATA, 0, stream, message(b"x", claimed=1000)))
        assert b"did not arrive within 1.5 s" in answer_to(peer, 9)
        ping(server)


def test_who_is_not_let_in_is_told_before_the_request_is_read(serve: Serve) -> None:
    server = serve(AUTH)
    with greeted(server) as peer:
        peer.call(1, abuses.PING_PATH, ("authorization", "Bearer wrong"))
        assert b"invalid bearer token" in answer_to(peer, 1)


def test_a_call_without_any_request_is_refused(serve: Serve) -> None:
    server = serve(AUTH)
    with greeted(server) as peer:
        peer.call(1, abuses.PING_PATH, CREDENTIALS)
        peer.send(frame(DATA, END_STREAM, 1))
        assert b"expected one request" in answer_to(peer, 1)


def test_a_stream_without_commands_ends_but_not_while_one_runs(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nstream_idle_ms = 2500\n")
    with good_client(server) as stub:
        stop = threading.Event()

        def commands() -> Iterator[RemSvc_pb2.RemCmdMsg]:
            yield RemSvc_pb2.RemCmdMsg(cmd="sleep 3; echo done")
            stop.wait(DEADLINE)

        call = stub.RemCmdStrm(commands(), metadata=METADATA, timeout=60)
        assert next(call).out == "done\n"
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        stop.set()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no command came for 2.5 s" in caught.value.details()


def test_answers_that_are_not_taken_hold_no_call(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nstream_idle_ms = 2000\nmax_calls = 1\n")
    command = RemSvc_pb2.RemCmdMsg(cmd="head -c 200000 /dev/zero | tr '\\0' x").SerializeToString()
    with raw(server) as peer:
        peer.greet(b"\x00\x04\x00\x00\x00\x00")  # no window: nothing may be sent to us
        peer.send(frame(SETTINGS, ACK, 0))
        peer.call(1, abuses.STREAM_PATH, CREDENTIALS)
        peer.send(frame(DATA, 0, 1, message(command) * 3))
        with good_client(server) as stub:
            eventually(lambda: "command rc=0" in server.log)
            eventually(lambda: status_of(lambda: stub.Ping(PING, metadata=METADATA, timeout=DEADLINE)) is _OK)


# Failed authentication


def test_failed_authentications_are_refused_quickly_and_fill_no_log(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nfailed_authentications = 5/h\n")
    with good_client(server) as stub:

        def guess(token: str) -> grpc.StatusCode:
            metadata = (("authorization", f"Bearer {token}"),)
            return status_of(lambda: stub.Ping(PING, metadata=metadata, timeout=DEADLINE))

        guesses = [guess(f"guess-{number}") for number in range(200)]
        assert set(guesses[:5]) == {grpc.StatusCode.UNAUTHENTICATED}
        assert set(guesses[5:]) == {_EXHAUSTED}
        # Nobody is kept out because of others at the same address.
        stub.Ping(PING, metadata=METADATA, timeout=DEADLINE)
    assert server.log.count("unauthenticated") == 5
    assert server.log.count("failed authentications are too many") == 1


def test_another_address_is_not_to_blame(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nfailed_authentications = 1/h\n")
    answers = []
    for source in ("127.0.0.2", "127.0.0.2", "127.0.0.3"):
        with greeted(server, source) as peer:
            peer.call(1, abuses.PING_PATH, body=message())
            answers.append(answer_to(peer, 1))
    assert b"missing Authorization" in answers[0]
    assert b"too many failed" in answers[1]
    assert b"missing Authorization" in answers[2]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("max_connections = 0", "expected a whole number from 1"),
        ("max_streams = many", "expected a whole number from 1"),
        ("max_metadata_bytes = 10", "expected a whole number from 1024"),
        ("handshake_timeout_ms = 0", "expected a whole number from 1"),
        ("failed_authentications = 10", "expected a rate, such as 100/m"),
        ("failed_authentications = 0/s", "expected a rate"),
    ],
)
def test_a_limit_out_of_range_is_a_mistake(tmp_path, setting: str, expected: str) -> None:  # type: ignore[no-untyped-def]
    from remsvc.server.config import check_config

    path = tmp_path / "server.ini"
    path.write_text(f"[limits]\n{setting}\n")
    (problem,), _ = check_config(path)
    assert problem.startswith(f"{path}:2: [limits] {setting}: {expected}")
