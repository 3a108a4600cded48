"""How a call is refused, for each reason there is, as gRPC's own client sees it: the true status and text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.attacks.abuses import COMMAND_PATH, PING_PATH
from tests.attacks.conftest import AUTH, METADATA, TOKEN, answer_to, greeted
from tests.attacks.raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    Header,
    frame,
    header_block,
    message,
)
from tests.conftest import DEADLINE, Serve, ServerProcess

_TOKEN = ("authorization", f"Bearer {TOKEN}")
_LIMITS = """\
[limits]
failed_authentications = 1000000/s
max_message_bytes = 100000
max_metadata_bytes = 4096
request_timeout_ms = 2000
"""
_POLICY = "[denylist]\nno-müsli = müsli\n"
_JOB_PATH = "/remsvc.jobs.v1.JobService/GetJob"
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
Code = grpc.StatusCode


class Refused(NamedTuple):
    """A call that is refused.

    Attributes:
        call: makes it.
        code: how it ends.
        details: what its text has in it.
        own: whether only our own HTTP/2 says it so.
    """

    name: str
    call: Callable[[grpc.Channel], object]
    code: grpc.StatusCode
    details: str
    own: bool = False


def _unary(path: str, request: bytes = b"", metadata: Any = METADATA, **options: Any) -> Any:
    return lambda channel: channel.unary_unary(path)(request, metadata=metadata, timeout=DEADLINE, **options)


def _requests(path: str, *requests: bytes) -> Any:
    return lambda channel: channel.stream_unary(path)(iter(requests), metadata=METADATA, timeout=DEADLINE)


def _command(cmd: str, timeout: float = DEADLINE, metadata: Any = METADATA) -> Any:
    request = RemSvc_pb2.RemCmdMsg(cmd=cmd)
    return lambda channel: RemSvc_pb2_grpc.RemSvcStub(channel).RemCmd(
        request, metadata=metadata, timeout=timeout
    )


def _commands(*texts: str, metadata: Any = METADATA) -> Any:
    requests = [RemSvc_pb2.RemCmdMsg(cmd=text) for text in texts]
    return lambda channel: list(
        RemSvc_pb2_grpc.RemSvcStub(channel).RemCmdStrm(iter(requests), metadata=metadata, timeout=DEADLINE)
    )


def _job(name: str) -> Any:
    return _unary(_JOB_PATH, jobs_pb2.GetJobRequest(id=name).SerializeToString())


def _wrong(token: str) -> Any:
    return (("authorization", f"Bearer {token}"),)


_LARGE = RemSvc_pb2.PingMsg(data=bytes(200_000)).SerializeToString()
_COMPRESSIBLE = RemSvc_pb2.PingMsg(data=bytes(20_000)).SerializeToString()

REFUSED = [
    Refused("no token", _unary(PING_PATH, metadata=()), Code.UNAUTHENTICATED, "missing Authorization header"),
    Refused("a wrong token", _unary(PING_PATH, metadata=_wrong("x")), Code.UNAUTHENTICATED, "invalid bearer"),
    Refused(
        "another scheme",
        _unary(PING_PATH, metadata=(("authorization", "Basic eA=="),)),
        Code.UNAUTHENTICATED,
        "must use 'Bearer' scheme",
    ),
    Refused(
        "a wrong token with a large request",
        _unary(PING_PATH, _LARGE, _wrong("x")),
        Code.UNAUTHENTICATED,
        "invalid",
    ),
    Refused("no token on a stream", _commands("true", metadata=()), Code.UNAUTHENTICATED, "missing"),
    Refused(
        "no token on a stream of ten", _commands(*["true"] * 10, metadata=()), Code.UNAUTHENTICATED, "missing"
    ),
    Refused("a denied command", _command("eat müsli"), Code.PERMISSION_DENIED, "no-müsli"),
    Refused(
        "a denied command on a stream",
        _commands("true", "eat müsli", "true"),
        Code.PERMISSION_DENIED,
        "no-müsli",
    ),
    Refused("a blank command", _command(" \n"), Code.INVALID_ARGUMENT, "cmd"),
    Refused("an unknown method", _unary("/RS.RemSvc/Nothing"), Code.UNIMPLEMENTED, "Method not found!"),
    Refused("an unknown service", _unary("/Nobody/Nothing"), Code.UNIMPLEMENTED, "Method not found!"),
    Refused("an unknown job", _job("a%20\n\tü\x7f€"), Code.NOT_FOUND, "there is no job"),
    Refused("no request", _requests(PING_PATH), Code.INVALID_ARGUMENT, "expected one request", own=True),
    Refused("no message", _unary(PING_PATH, b"\xff\xff"), Code.INVALID_ARGUMENT, "PingMsg", own=True),
    Refused(
        "a compressed message",
        _unary(PING_PATH, _COMPRESSIBLE, compression=grpc.Compression.Gzip),
        Code.UNIMPLEMENTED,
        "compressed",
        own=True,
    ),
    Refused(
        "a message that is too large", _unary(PING_PATH, _LARGE), Code.RESOURCE_EXHAUSTED, "larger than max"
    ),
    Refused(
        "too much metadata",
        _unary(PING_PATH, metadata=(*METADATA, ("x", "y" * 5000))),
        Code.RESOURCE_EXHAUSTED,
        "metadata",
    ),
    Refused("a deadline", _command("sleep 30", timeout=0.3), Code.DEADLINE_EXCEEDED, ""),
]


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module(f"{AUTH}{_LIMITS}{_POLICY}")


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target, _OWN_CONNECTION) as channel:
        yield channel


@pytest.mark.parametrize(
    "refused",
    [pytest.param(each, id=each.name, marks=[pytest.mark.own_http2] if each.own else []) for each in REFUSED],
)
def test_a_refused_call(channel: grpc.Channel, refused: Refused) -> None:
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            refused.call(channel)
        assert caught.value.code() is refused.code
        assert refused.details in caught.value.details()
    stub = RemSvc_pb2_grpc.RemSvcStub(channel)
    assert stub.Ping(RemSvc_pb2.PingMsg(seq=4), metadata=METADATA, timeout=DEADLINE).seq == 4


@pytest.mark.own_http2
@pytest.mark.parametrize("count", [1, 3, 4, 10, 30])
async def test_a_list_of_commands_without_a_token_sees_why(server: ServerProcess, count: int) -> None:
    """Where the answer comes between two of them, as with gRPC's server, half of them see ``INTERNAL``."""
    commands = [RemSvc_pb2.RemCmdMsg(cmd="echo " + "x" * 1000)] * count
    for _ in range(20):
        async with grpc.aio.insecure_channel(server.target, _OWN_CONNECTION) as channel:
            call = RemSvc_pb2_grpc.RemSvcStub(channel).RemCmdStrm(iter(commands), timeout=DEADLINE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            assert caught.value.code() is Code.UNAUTHENTICATED
            assert caught.value.details() == "missing Authorization header"


# What gRPC's own clients never send


def _sent(server: ServerProcess, headers: list[Header], body: bytes) -> bytes:
    """The headers of the answer to a request."""
    with greeted(server) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, header_block(headers)), frame(DATA, END_STREAM, 1, body))
        return answer_to(peer, 1)


def _with(path: str | bytes = PING_PATH, *extra: Header, **changed: str) -> list[Header]:
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **{name.replace("_", "-").replace("pseudo-", ":"): value for name, value in changed.items()},
    }
    return [*headers.items(), *extra]


@pytest.mark.own_http2
@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        pytest.param(_with(content_type="text/plain"), b"", b":status: 415", id="another content type"),
        pytest.param(_with(content_type="application/grpcx"), b"", b":status: 415", id="one that is similar"),
        pytest.param(_with(pseudo_method="GET"), b"", b":status: 405", id="another method of HTTP"),
        pytest.param(
            _with(b"/RS.RemSvc/Ping\xa3", _TOKEN), b"", b"grpc-status: 12", id="a path that is not UTF-8"
        ),
        pytest.param(_with("/RS.RemSvc/Ping?x", _TOKEN), b"", b"grpc-status: 12", id="a path with a query"),
        *(
            pytest.param(
                _with(PING_PATH, _TOKEN, ("grpc-timeout", timeout)),
                message(),
                b"grpc-status: 3",
                id=f"a timeout of {timeout!r}",
            )
            for timeout in ("1", "S", "1s", "-1S", "1.5S", "123456789S", "1Sx")
        ),
        pytest.param(
            _with(COMMAND_PATH, _TOKEN, ("grpc-timeout", "300m")),
            message(RemSvc_pb2.RemCmdMsg(cmd="sleep 30").SerializeToString()),
            b"grpc-status: 4",
            id="a deadline",
        ),
        pytest.param(
            _with(PING_PATH, _TOKEN),
            b"\1" + message(b"xyz")[1:],
            b"grpc-accept-encoding: identity",
            id="compressed",
        ),
        pytest.param(_with(PING_PATH, _TOKEN), message(claimed=9), b"grpc-status: 3", id="half a message"),
        pytest.param(_with(PING_PATH, _TOKEN), b"\0\0", b"grpc-status: 3", id="half a prefix"),
        pytest.param(
            _with(_JOB_PATH, _TOKEN),
            message(jobs_pb2.GetJobRequest(id="%\nä").SerializeToString()),
            rb"'%25\n%C3%A4'",
            id="a text that has to be encoded",
        ),
    ],
)
def test_an_odd_request(server: ServerProcess, headers: list[Header], body: bytes, expected: bytes) -> None:
    assert expected in _sent(server, headers, body)


def test_the_server_has_not_failed(server: ServerProcess) -> None:
    """Comes last: after all the others."""
    assert "Traceback" not in server.log
