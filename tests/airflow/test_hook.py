"""The hook: what it opens, what it shares, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import socket

import grpc
import pytest
from airflow.sdk.log import mask_logs

from conftest import in_a_thread
from remsvc_proto import RemSvc_pb2 as pb2
from remsvc_proto import RemSvc_pb2_grpc as pb2_grpc
from remsvc_provider.hooks.remsvc import RemSvcHook


@pytest.fixture
def guarded(serve, connect) -> str:
    """The id of a connection to a server that wants a token."""
    server = serve("[auth]\nairflow = tok-0123456789\n", "--host=127.0.0.1")
    return connect(f'remsvc://{server.target}?extra={{"bearer_token":"tok-0123456789"}}')


def test_get_conn_is_the_airflow_connection(guarded):
    connection = RemSvcHook(guarded).get_conn()
    assert (connection.conn_id, connection.conn_type, connection.host) == (
        "remsvc_test",
        "remsvc",
        "127.0.0.1",
    )


def test_default_connection_id():
    assert RemSvcHook().remsvc_conn_id == "remsvc_default"


def test_synchronous_channel(guarded):
    hook = RemSvcHook(guarded)
    with hook.get_channel() as channel:
        stub = pb2_grpc.RemSvcStub(channel)
        assert stub.Ping(pb2.PingMsg(seq=3), metadata=hook.get_call_metadata(), timeout=10).seq == 3
        with pytest.raises(grpc.RpcError) as caught:
            stub.Ping(pb2.PingMsg(seq=3), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_call_metadata(guarded, connect):
    assert RemSvcHook(guarded).get_call_metadata() == [("authorization", "Bearer tok-0123456789")]
    assert RemSvcHook(connect("remsvc://host")).get_call_metadata() == []


def test_client(guarded):
    with RemSvcHook(guarded).get_client() as client:
        assert client.status().msg.startswith("state=OK ")


async def test_asynchronous_channel_is_shared(guarded):
    hook = RemSvcHook(guarded)
    await hook.get_async_conn()
    channel = hook.get_async_channel()
    assert channel is hook.get_async_channel()
    other = RemSvcHook(guarded)
    assert channel is other.get_async_channel()
    stub = pb2_grpc.RemSvcStub(channel)
    assert (await stub.Ping(pb2.PingMsg(seq=4), metadata=hook.get_call_metadata(), timeout=10)).seq == 4


async def test_a_channel_that_somebody_closed_is_replaced(guarded):
    hook = RemSvcHook(guarded)
    first = hook.get_async_channel()
    async with first:
        pass
    second = hook.get_async_channel()
    assert second is not first
    stub = pb2_grpc.RemSvcStub(second)
    await stub.Ping(pb2.PingMsg(), metadata=hook.get_call_metadata(), timeout=10)


async def test_other_credentials_get_another_channel(connect, certificates, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(certificates.ca.read_bytes())

    def channel(**extra):
        return RemSvcHook(connect(f"remsvc://127.0.0.1:1?extra={json.dumps(extra)}")).get_async_channel()

    plain = channel()
    tls = channel(use_ssl=True, ca_cert_path=str(ca))
    other = channel(bearer_token="somebody-else")
    assert len({plain, tls, other}) == 3
    assert channel(use_ssl=True, ca_cert_path=str(ca)) is tls
    ca.write_bytes(certificates.ca.read_bytes() * 2)  # a renewed file
    assert channel(use_ssl=True, ca_cert_path=str(ca)) is not tls


def test_channels_are_closed_with_their_loop(guarded):
    async def use() -> grpc.aio.Channel:
        hook = RemSvcHook(guarded)
        channel = hook.get_async_channel()
        await pb2_grpc.RemSvcStub(channel).Ping(pb2.PingMsg(), metadata=hook.get_call_metadata(), timeout=10)
        return channel

    first, second = (in_a_thread(lambda: asyncio.run(use())) for _ in range(2))
    assert first is not second
    assert first.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    assert second.get_state() is grpc.ChannelConnectivity.SHUTDOWN


def test_connection_test(guarded):
    ok, message = RemSvcHook(guarded).test_connection()
    assert ok
    assert "answered over plaintext in " in message
    assert "state=OK" in message
    assert "tok-0123456789" not in message


def test_connection_test_with_a_wrong_token(serve, connect):
    server = serve("[auth]\nairflow = tok-0123456789\n", "--host=127.0.0.1")
    ok, message = RemSvcHook(connect(f"remsvc://{server.target}?bearer_token=wrong-token")).test_connection()
    assert not ok
    assert "UNAUTHENTICATED: invalid bearer token" in message
    assert "wrong-token" not in message


def test_connection_test_without_a_server(connect):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ok, message = RemSvcHook(connect(f"remsvc://127.0.0.1:{free.getsockname()[1]}")).test_connection()
    assert not ok
    assert "UNAVAILABLE" in message


def test_connection_test_of_a_malformed_connection(connect):
    ok, message = RemSvcHook(connect("remsvc://host?use_ssl=maybe")).test_connection()
    assert not ok
    assert "extra use_ssl is 'maybe'; expected true or false" in message


def test_the_token_is_masked_in_logs(connect):
    _ = RemSvcHook(connect('remsvc://host?extra={"bearer_token":"masked-0123456789"}')).options
    assert mask_logs(None, "info", {"event": "it is masked-0123456789"}) == {"event": "it is ***"}


async def test_the_token_is_masked_in_logs_of_the_triggerer(connect):
    await RemSvcHook(connect('remsvc://host?extra={"bearer_token":"hidden-0123456789"}')).get_async_conn()
    assert mask_logs(None, "info", {"event": "it is hidden-0123456789"}) == {"event": "it is ***"}
