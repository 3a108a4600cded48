"""Error statuses, broken and missing connections, time limits; and whether a command may have been sent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.client.failures import from_status
from remsvc.client.grpc_transport.channel import open_async_channel
from remsvc.client.transport import Readiness
from remsvc.client.transport_choice import open_async_transport
from remsvc.command import Command
from remsvc.errors import (
    CallCancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    ServerError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from tests.contract.wire import inside

from .conftest import DEADLINE, Connect
from .flavours import AnyClient
from .scripted_server import ScriptedServer, answer, command, echo, succeed

Scripted = Callable[..., ScriptedServer]
Call = Callable[[AnyClient], object]

COMMAND = Command("true")

CALLS: list[Call] = [
    lambda client: client.run(COMMAND),
    lambda client: list(client.run_many([COMMAND] * 3)),
]


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are accepted, and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDeniedError),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgumentError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhaustedError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceededError),
        (grpc.StatusCode.UNIMPLEMENTED, UnimplementedError),
        (grpc.StatusCode.INTERNAL, ServerError),
        (grpc.StatusCode.CANCELLED, CallCancelledError),
        (grpc.StatusCode.DATA_LOSS, ServerError),
    ],
)
@pytest.mark.parametrize("call", CALLS, ids=["run", "run_many"])
def test_each_status_has_its_error(
    scripted: Scripted, connect: Connect, call: Call, code: grpc.StatusCode, kind: type[ServerError]
) -> None:
    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "the reason")

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield answer(tid=command(next(requests)).tid)
        context.abort(code, "the reason")

    server = scripted(run=run, stream=stream)
    with connect(ConnectionOptions(server.target)) as client, pytest.raises(ServerError) as caught:
        call(client)
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.details, error.target) == (code.name, "the reason", server.target)
    assert str(error) == f"{server.target}: {code.name}: the reason"
    assert error.sent


@pytest.mark.parametrize("call", CALLS, ids=["run", "run_many"])
def test_a_call_that_a_server_gives_up_as_it_ends_is_explained(
    scripted: Scripted, connect: Connect, call: Call
) -> None:
    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")  # what gRPC's core answers by itself

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)
        yield run(b"", context)

    server = scripted(run=run, stream=stream)
    with (
        connect(ConnectionOptions(server.target)) as client,
        pytest.raises(CallCancelledError, match="the server gave the call up") as caught,
    ):
        call(client)
    assert caught.value.sent


@pytest.mark.parametrize("call", CALLS, ids=["run", "run_many"])
def test_nothing_is_sent_to_a_server_that_gives_up_a_ping(
    scripted: Scripted, connect: Connect, call: Call
) -> None:
    arrived = []

    def ping(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")

    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        arrived.append(request)
        return answer()

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        arrived.append(b"")
        yield from succeed(requests, context)

    server = scripted(ping=ping, run=run, stream=stream)
    with (
        connect(ConnectionOptions(server.target)) as client,
        pytest.raises(UnavailableError, match="the server gave the call up") as caught,
    ):
        call(client)
    assert not caught.value.sent
    assert not arrived


def test_a_refusal_in_a_stream_is_always_told_as_it_was_made(scripted: Scripted, connect: Connect) -> None:
    # grpc.aio by itself reports such a status as INTERNAL now and then, when a write fails meanwhile.
    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for _, request in zip(range(2), requests, strict=False):
            yield answer(tid=command(request).tid)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "command denied by denylist")

    with connect(ConnectionOptions(scripted(stream=stream).target)) as client:
        for _ in range(100):
            results = client.run_many([Command("x" * 2000)] * 200)
            assert [next(results).tid, next(results).tid] == [1, 2]
            with pytest.raises(PermissionDeniedError, match="command denied by denylist"):
                next(results)


def test_a_server_without_the_method_is_told(scripted: Scripted, connect: Connect) -> None:
    with connect(ConnectionOptions(scripted().target)) as client:
        for call in CALLS:
            with pytest.raises(UnimplementedError):
                call(client)


@pytest.mark.parametrize("call", CALLS, ids=["run", "run_many"])
def test_a_refused_connection_fails_at_once_and_sent_nothing(connect: Connect, call: Call) -> None:
    options = ConnectionOptions(f"127.0.0.1:{unused_port()}")
    with connect(options) as client, pytest.raises(UnavailableError) as caught:
        call(client)
    assert not caught.value.sent
    assert "nothing listens on this port" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


REASONS = {
    # What the newest and the oldest supported gRPC say.
    "certificate has expired": "it has expired",
    "certificate is not yet valid": "it is not valid yet",
    "Hostname Verification Check failed.": "issued for another host name",
    "Peer name 127.0.0.1 is not in peer certificate": "issued for another host name",
    "unable to get local issuer certificate": "authority is not trusted",
    "SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED": "or its authority is not trusted",
    "SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER": "does not speak TLS",
    "Failed to connect to remote host: connect: Connection refused (111)": "nothing listens on this port",
    "Trying to connect an http1.x server (HTTP status 400)": "it speaks HTTP/1",
    "connection attempt timed out before receiving SETTINGS frame": "or does not speak gRPC",
    "Socket closed": "does it expect a client certificate",
    "something new": "no connection",
}


@pytest.mark.parametrize(("reason", "meaning"), REASONS.items())
def test_the_reason_for_no_connection_is_explained(reason: str, meaning: str) -> None:
    details = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: {reason}"
    error = from_status("UNAVAILABLE", details, ConnectionOptions("localhost:1", tls=True))
    assert meaning in error.details
    assert error.details.endswith(f"[ipv4:127.0.0.1:1: {reason}]")


@pytest.mark.parametrize(
    "details",
    [
        "errors resolving nope.invalid:1: [field:hostname lookup error:address lookup failed]",
        "DNS resolution failed for nope.invalid:1: C-ares status is not ARES_SUCCESS qtype=AAAA",
    ],
)
def test_an_unknown_host_is_explained(details: str) -> None:
    error = from_status("UNAVAILABLE", details, ConnectionOptions("nope.invalid:1"))
    assert error.details == f"the host name is not known [{details}]"


def test_what_the_server_says_is_not_explained_away() -> None:
    for code, details in (
        ("UNAVAILABLE", "shutting down"),
        ("INTERNAL", "failed to connect to all addresses"),
    ):
        assert from_status(code, details, ConnectionOptions("localhost:1")).details == details


def test_a_server_that_says_nothing_runs_into_the_time_limit(connect: Connect, silent_port: int) -> None:
    options = ConnectionOptions(f"127.0.0.1:{silent_port}")
    with connect(options) as client:
        for call in (
            lambda: client.run(COMMAND, timeout=0.3),
            lambda: list(client.run_many([COMMAND], timeout=0.3)),
        ):
            with pytest.raises(DeadlineExceededError, match=r"no connection within 0\.3 s") as caught:
                call()
            assert not caught.value.sent
        with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.3 s"):
            client.ping(timeout=0.3)


def test_an_http_server_is_told(connect: Connect) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(24)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        options = ConnectionOptions(f"127.0.0.1:{listener.getsockname()[1]}")
        with connect(options) as client, pytest.raises(UnavailableError, match="HTTP/1") as caught:
            client.run(COMMAND)
        assert not caught.value.sent
        listener.shutdown(socket.SHUT_RDWR)


def test_the_time_limit_of_a_call_cancels_it(scripted: Scripted, connect: Connect) -> None:
    gone = [threading.Event(), threading.Event()]

    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(gone[0].set)
        gone[0].wait(DEADLINE)
        return answer()

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(gone[1].set)
        yield answer(tid=command(next(requests)).tid)
        gone[1].wait(DEADLINE)

    with connect(ConnectionOptions(scripted(run=run, stream=stream).target)) as client:
        client.connect()  # else no time may be left for the call
        with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.5 s") as caught:
            client.run(COMMAND, timeout=0.5)
        assert caught.value.sent
        results = client.run_many([COMMAND, COMMAND], timeout=2.0)
        assert next(results).tid == 1
        with pytest.raises(DeadlineExceededError, match=r"no answer within 2 s") as caught:
            next(results)
        assert caught.value.sent
    assert gone[0].wait(DEADLINE)
    assert gone[1].wait(DEADLINE)


@pytest.mark.parametrize("call", CALLS, ids=["run", "run_many"])
def test_a_connection_lost_meanwhile_may_have_sent(scripted: Scripted, connect: Connect, call: Call) -> None:
    arrived = threading.Event()

    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        arrived.set()
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(DEADLINE)
        return answer()

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)
        yield run(b"", context)

    server = scripted(run=run, stream=stream)
    stopper = threading.Thread(target=lambda: arrived.wait(DEADLINE) and server.stop())
    stopper.start()
    with connect(ConnectionOptions(server.target)) as client, pytest.raises(ServerError) as caught:
        call(client)
    stopper.join()
    assert caught.value.code in ("UNAVAILABLE", "CANCELLED", "UNKNOWN")
    assert caught.value.sent


def test_a_client_reaches_a_server_that_comes_up_later(scripted: Scripted, connect: Connect) -> None:
    port = unused_port()
    with connect(ConnectionOptions(f"127.0.0.1:{port}")) as client:
        with pytest.raises(UnavailableError):
            client.run(COMMAND)
        server = scripted(stream=succeed, port=port)
        _until_reached(client)
        server.stop()
        with pytest.raises(UnavailableError):
            list(client.run_many([COMMAND]))
        with pytest.raises(UnavailableError) as caught:
            list(client.run_many([COMMAND]))
        assert not caught.value.sent
        scripted(stream=succeed, port=port)
        _until_reached(client)


def _until_reached(client: AnyClient) -> None:
    for _ in range(200):
        sent = False
        try:
            assert [result.tid for result in client.run_many([COMMAND])] == [1]
            return
        except UnavailableError as error:
            sent = error.sent
        assert not sent
        time.sleep(0.1)
    pytest.fail("the client did not find the server again")


async def test_a_lost_connection_is_waited_for(scripted: Scripted, transport: str) -> None:
    # The state of a pooled channel may be old news; one call must do after the server is back.
    port = unused_port()
    async with AsyncClient(ConnectionOptions(f"127.0.0.1:{port}", transport=transport)) as client:
        with pytest.raises(UnavailableError):
            await client.run(COMMAND)
        scripted(run=lambda request, context: answer(tid=1), port=port)
        assert (await client.run(COMMAND)).tid == 1


async def test_a_transport_of_somebody_else_is_used_and_left_open(scripted: Scripted, transport: str) -> None:
    options = ConnectionOptions(scripted(stream=succeed).target, transport=transport)
    shared = open_async_transport(options)
    async with AsyncClient.over(shared, options) as client:
        assert [result.tid async for result in client.run_many([COMMAND])] == [1]
    assert shared.readiness is Readiness.READY
    await shared.close()
    async with AsyncClient.over(shared, options) as client:
        with pytest.raises(UnavailableError, match="the channel is closed") as caught:
            await client.run(COMMAND)
        assert not caught.value.sent


async def test_a_channel_of_somebody_else_is_used_and_left_open(scripted: Scripted) -> None:
    server = scripted(stream=succeed)
    options = ConnectionOptions(server.target)
    channel = open_async_channel(options)
    async with AsyncClient.over(channel, options) as client:
        assert [result.tid async for result in client.run_many([COMMAND])] == [1]
    assert channel.get_state() is grpc.ChannelConnectivity.READY
    await channel.close()
    async with AsyncClient.over(channel, options) as client:
        with pytest.raises(UnavailableError, match="the channel is closed") as caught:
            await client.run(COMMAND)
        assert not caught.value.sent


def test_gRPC_sends_nothing_twice(scripted: Scripted, connect: Connect) -> None:
    arrivals = []

    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        arrivals.append(request)
        context.set_trailing_metadata([("grpc-retry-pushback-ms", "0")])
        context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    with connect(ConnectionOptions(scripted(run=run).target)) as client, pytest.raises(UnavailableError):
        client.run(COMMAND)
    assert len(arrivals) == 1


def test_an_overlong_answer_is_told(scripted: Scripted, connect: Connect) -> None:
    def ping(request: bytes, context: grpc.ServicerContext) -> bytes:
        return inside(3, bytes(65 * 1024 * 1024))

    options = ConnectionOptions(scripted(ping=ping).target)
    with connect(options) as client, pytest.raises(ResourceExhaustedError, match="larger than max"):
        client.ping()


def test_a_server_that_does_not_answer_pings_counts_as_down(scripted: Scripted, connect: Connect) -> None:
    def ping(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    options = ConnectionOptions(scripted(ping=ping, stream=succeed).target)
    with connect(options) as client, pytest.raises(UnavailableError, match="going down") as caught:
        list(client.run_many([COMMAND]))
    assert not caught.value.sent


def test_a_refused_ping_does_not_stand_in_the_way(scripted: Scripted, connect: Connect) -> None:
    def ping(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "this caller may not ping")

    with connect(ConnectionOptions(scripted(ping=ping, stream=succeed).target)) as client:
        assert [result.tid for result in client.run_many([COMMAND])] == [1]


def test_no_ping_goes_before_each_command(scripted: Scripted, connect: Connect) -> None:
    pings = []

    def ping(request: bytes, context: grpc.ServicerContext) -> bytes:
        pings.append(request)
        return echo(request, context)

    with connect(ConnectionOptions(scripted(ping=ping, stream=succeed).target)) as client:
        for _ in range(5):
            list(client.run_many([COMMAND]))
    assert len(pings) == 1
