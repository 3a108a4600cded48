"""What strangers may ask without a token costs a few KiB and no time, on both transports."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from remsvc_proto import RemSvc_pb2
from tests.attacks.conftest import AUTH, METADATA, good_client
from tests.conftest import DEADLINE, Serve, ServerProcess

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@pytest.fixture(params=["http2", "grpc"])
def server(request: pytest.FixtureRequest, serve: Serve) -> ServerProcess:
    return serve(f"{AUTH}[log]\nlevel = error\n", "--transport", request.param)


def resident(server: ServerProcess) -> int:
    size: int = psutil.Process(server.process.pid).memory_info().rss
    return size


def strangers_call(
    server: ServerProcess, method: str, data: bytes, compression: grpc.Compression, *, streaming: bool = False
) -> tuple[grpc.StatusCode, int]:
    """The status of 40 calls, eight at a time, and how much larger the server became meanwhile."""
    with good_client(server) as stub:
        stub.Ping(RemSvc_pb2.PingMsg(), metadata=METADATA, timeout=DEADLINE)
    before = most = resident(server)

    def call(_: int) -> grpc.StatusCode:
        nonlocal most
        with grpc.insecure_channel(server.target, options=OPTIONS) as channel:
            try:
                if streaming:
                    list(
                        channel.stream_stream(method)(
                            iter([data]), timeout=DEADLINE, compression=compression, metadata=METADATA
                        )
                    )
                else:
                    channel.unary_unary(method)(data, timeout=DEADLINE, compression=compression)
            except grpc.RpcError as error:
                most = max(most, resident(server))
                return error.code()  # type: ignore[no-any-return]
        return grpc.StatusCode.OK

    with ThreadPoolExecutor(8) as executor:
        (code,) = set(executor.map(call, range(40)))
    return code, most - before


@pytest.mark.parametrize("method", [CHECK, WATCH])
def test_a_compressed_health_check_is_not_expanded(server: ServerProcess, method: str) -> None:
    bomb = health_pb2.HealthCheckRequest(service="x" * 3_900_000).SerializeToString()
    code, growth = strangers_call(server, method, bomb, grpc.Compression.Gzip)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert growth < 16e6


def test_a_long_health_check_is_refused(server: ServerProcess) -> None:
    long = health_pb2.HealthCheckRequest(service="x" * 5_000).SerializeToString()
    code, growth = strangers_call(server, CHECK, long, grpc.Compression.NoCompression)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert growth < 16e6


def test_a_long_question_about_services_is_refused(server: ServerProcess) -> None:
    """The names of what is asked for come back in the answer: they have to be short."""
    long = b"\x1a\x88\x27" + b"x" * 5_000
    code, _ = strangers_call(server, REFLECT, long, grpc.Compression.NoCompression, streaming=True)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_health_check_whose_name_is_short_is_answered(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.target) as channel:
        request = health_pb2.HealthCheckRequest(service="RS.RemSvc")
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=DEADLINE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
