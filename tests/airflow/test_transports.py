"""What carries the calls of deferred tasks: pooled, chosen by the connection, and without gRPC by http2."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import subprocess
import sys
import threading
import weakref
from dataclasses import replace

import grpc
import pytest
from triggering import fire, trigger, until

from conftest import in_a_thread
from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.client.transport import Readiness
from remsvc_provider.running import channels
from remsvc_provider.running.channels import pooled_transport
from remsvc_provider.turns import turn


async def test_a_transport_is_shared_by_all_with_the_same_options(serve):
    options = ConnectionOptions(serve("", "--host=127.0.0.1").target, transport="http2")
    with pooled_transport(options) as transport:
        with pooled_transport(ConnectionOptions(options.target, transport="http2")) as same:
            assert transport is same
        with pooled_transport(options.for_jobs()) as other:
            assert transport is not other
        async with AsyncClient.over(transport, options) as client:
            await client.ping()
        assert transport.readiness is Readiness.READY


async def test_a_transport_that_somebody_closed_is_replaced():
    options = ConnectionOptions("127.0.0.1:1", transport="http2")
    with pooled_transport(options) as first:
        await first.close()
        with pooled_transport(options) as second:
            assert second is not first


@pytest.mark.parametrize("transport", ["http2", "grpc"])
def test_transports_are_closed_with_their_loop(serve, transport):
    options = ConnectionOptions(serve("", "--host=127.0.0.1").target, transport=transport)

    async def use():
        with pooled_transport(options) as pooled:
            async with AsyncClient.over(pooled, options) as client:
                await client.ping()
            return pooled

    assert asyncio.run(use()).readiness is Readiness.CLOSED


@pytest.fixture
def soon(monkeypatch):
    """Connections are kept for a moment only."""
    monkeypatch.setattr(channels, "KEPT_SECONDS", 0.2)
    monkeypatch.setattr(channels, "SWEEP_SECONDS", 0.05)


def test_a_transport_that_nobody_uses_is_closed_after_some_time(serve, soon):
    options = ConnectionOptions(serve("", "--host=127.0.0.1").target, transport="http2")

    async def use():
        with pooled_transport(options) as used:
            async with AsyncClient.over(used, options) as client:
                with pooled_transport(replace(options, token="renewed")) as unused:
                    pass
                await until(lambda: unused.readiness is Readiness.CLOSED)
                assert used.readiness is not Readiness.CLOSED
                await client.ping()
        await until(lambda: used.readiness is Readiness.CLOSED)
        with pooled_transport(options) as again:
            assert again is not used

    asyncio.run(use())


def test_a_transport_that_is_always_in_use_is_replaced_in_time(serve, soon, monkeypatch):
    """Who has the old one keeps it; it is closed when the last of them has gone."""
    options = ConnectionOptions(serve("", "--host=127.0.0.1").target, transport="http2")

    async def use():
        with pooled_transport(options) as old:
            async with AsyncClient.over(old, options) as client:
                await client.ping()
                monkeypatch.setattr(channels, "LIFE_SECONDS", 0.0)  # it is old now
                with pooled_transport(options) as new:
                    assert new is not old
                    monkeypatch.setattr(channels, "LIFE_SECONDS", 60.0)
                    with pooled_transport(options) as same:
                        assert same is new
                    with pooled_transport(replace(options, token="renewed")) as unused:
                        pass
                    await until(lambda: unused.readiness is Readiness.CLOSED, "a sweep")
                    await client.ping()
                    assert old.readiness is Readiness.READY
        await until(lambda: old.readiness is Readiness.CLOSED)

    asyncio.run(use())


def test_what_was_replaced_is_closed_with_its_loop(serve, monkeypatch):
    monkeypatch.setattr(channels, "LIFE_SECONDS", 0.0)
    options = ConnectionOptions(serve("", "--host=127.0.0.1").target, transport="http2")

    async def use():
        opened = []
        for _ in range(3):
            with pooled_transport(options) as transport:
                opened.append(transport)
                async with AsyncClient.over(transport, options) as client:
                    await client.ping()
            await asyncio.sleep(0.01)
        assert len(set(opened)) == 3
        assert Readiness.CLOSED not in [transport.readiness for transport in opened]
        return opened

    assert [transport.readiness for transport in asyncio.run(use())] == [Readiness.CLOSED] * 3


# The garbage collector meets what other tests have left open, too.
of_others = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@of_others
def test_a_channel_is_let_go_but_not_closed_under_its_user(serve, soon):
    target = serve("", "--host=127.0.0.1").target

    async def use():
        held = channels.pooled_channel(ConnectionOptions(target))
        forgotten = weakref.ref(channels.pooled_channel(ConnectionOptions(target, token="old")))

        def gone():
            gc.collect()
            return forgotten() is None

        await until(gone)
        assert channels.pooled_channel(ConnectionOptions(target)) is held
        assert held.get_state() is not grpc.ChannelConnectivity.SHUTDOWN

    asyncio.run(use())


@of_others
def test_a_channel_that_is_always_in_use_is_replaced_in_time(serve, monkeypatch):
    target = serve("", "--host=127.0.0.1").target

    async def use():
        held = channels.pooled_channel(ConnectionOptions(target))
        assert channels.pooled_channel(ConnectionOptions(target)) is held
        monkeypatch.setattr(channels, "LIFE_SECONDS", 0.0)
        await asyncio.sleep(0.01)
        new = channels.pooled_channel(ConnectionOptions(target))
        assert new is not held
        assert held.get_state() is not grpc.ChannelConnectivity.SHUTDOWN
        return held, new

    for channel in asyncio.run(use()):
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


@of_others
@pytest.mark.parametrize("orderly", [True, False])
def test_a_closed_loop_is_forgotten(orderly):
    """With its connections, locks and turns, as soon as another loop needs some."""

    async def contended():
        async with turn("kind"):
            await asyncio.sleep(0)

    async def use():
        with pooled_transport(ConnectionOptions("127.0.0.1:1", transport="http2")):
            await asyncio.gather(*(contended() for _ in range(40)))
        return weakref.ref(asyncio.get_running_loop())

    def run():
        if orderly:
            return asyncio.run(use())
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(use())
        finally:
            loop.close()

    loops = [run() for _ in range(5)]
    gc.collect()
    assert [loop() for loop in loops[:-1]] == [None] * 4


@pytest.mark.parametrize("transport", ["http2", "grpc"])
@pytest.mark.parametrize(
    ("extra", "asked"), [("", False), ("&http_connect=no", False), ("&http_connect=1", True)]
)
def test_a_proxy_gets_no_plaintext_token_unless_the_connection_asks_for_it(
    serve, connect, monkeypatch, transport, extra, asked
):
    reached = threading.Event()
    server = serve("[auth]\nairflow = tok-0123456789\n", "--host=127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = proxy.accept()
                    reached.set()
                    connection.close()

        answering = threading.Thread(target=answer)
        answering.start()
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        uri = f"remsvc://{server.target}?bearer_token=tok-0123456789&transport={transport}{extra}"
        event = in_a_thread(asyncio.run, fire(trigger(connect(uri), "echo safe", origin=None)))
        assert reached.is_set() is asked
        assert event["state"] == ("FAILED" if asked else "SUCCESS"), event
        proxy.shutdown(socket.SHUT_RDWR)
    answering.join(30)


def test_a_trigger_by_http2_loads_no_grpc(serve):
    script = f"""
import asyncio, sys
from remsvc.client.options import ConnectionOptions
from remsvc_provider.triggers.remsvc import RemSvcTrigger
import remsvc_provider.running.durable_run, remsvc_provider.running.stream_run, remsvc_provider.running.access
from remsvc_provider.running.channels import pooled_transport
from remsvc.client import AsyncClient
options = ConnectionOptions({serve("", "--host=127.0.0.1").target!r}, transport="http2")
async def use():
    with pooled_transport(options) as transport:
        client = AsyncClient.over(transport, options)
        return (await client.status()).transport
print(asyncio.run(use()), "grpc" in sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.stdout.splitlines()[-1:] == ["http2 False"], run.stdout + run.stderr
