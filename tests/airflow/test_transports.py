"""What carries the calls of deferred tasks: pooled, chosen by the connection, and without gRPC by http2."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.client.transport import Readiness
from remsvc_provider.channels import pooled_transport


async def test_a_transport_is_shared_by_all_with_the_same_options(serve):
    options = ConnectionOptions(serve("", "--host=127.0.0.1").target, transport="http2")
    transport = pooled_transport(options)
    assert transport is pooled_transport(ConnectionOptions(options.target, transport="http2"))
    assert transport is not pooled_transport(options.for_jobs())
    async with AsyncClient.over(transport, options) as client:
        await client.ping()
    assert transport.readiness is Readiness.READY


async def test_a_transport_that_somebody_closed_is_replaced():
    options = ConnectionOptions("127.0.0.1:1", transport="http2")
    first = pooled_transport(options)
    await first.close()
    assert pooled_transport(options) is not first


@pytest.mark.parametrize("transport", ["http2", "grpc"])
def test_transports_are_closed_with_their_loop(serve, transport):
    options = ConnectionOptions(serve("", "--host=127.0.0.1").target, transport=transport)

    async def use():
        pooled = pooled_transport(options)
        async with AsyncClient.over(pooled, options) as client:
            await client.ping()
        return pooled

    assert asyncio.run(use()).readiness is Readiness.CLOSED


def test_a_trigger_by_http2_loads_no_grpc(serve):
    script = f"""
import asyncio, sys
from remsvc.client.options import ConnectionOptions
from remsvc_provider.plan import Plan
from remsvc_provider.triggers.remsvc import RemSvcTrigger
import remsvc_provider.job_run, remsvc_provider.stream, remsvc_provider.server_access
from remsvc_provider.channels import pooled_transport
from remsvc.client import AsyncClient
options = ConnectionOptions({serve("", "--host=127.0.0.1").target!r}, transport="http2")
async def use():
    async with AsyncClient.over(pooled_transport(options), options) as client:
        return (await client.status()).transport
print(asyncio.run(use()), "grpc" in sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.stdout.splitlines()[-1:] == ["http2 False"], run.stdout + run.stderr
