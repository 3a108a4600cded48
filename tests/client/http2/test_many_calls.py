"""More calls that last than a server takes on one connection: none waits for another one's end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.client.jobs import JobSpec
from tests.conftest import Serve

_STREAMS, _WATCHES = 3, 10


async def test_calls_that_last_keep_no_others_from_beginning(serve: Serve) -> None:
    server = serve(f"[limits]\nmax_streams = {_STREAMS}\n", "--host=127.0.0.1")
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            AsyncClient(ConnectionOptions(server.target, transport="http2"))
        )
        job = await client.create_job(JobSpec(shell_command="echo there; sleep 60"), "one")
        for _ in range(_WATCHES):
            watch = client.watch_job(job.id)
            await asyncio.wait_for(anext(watch), 30)
            stack.push_async_callback(watch.aclose)
        assert (await client.get_job(job.id, timeout=30)).id == job.id
        assert (await client.cancel_job(job.id, timeout=30)).id == job.id


async def test_many_that_begin_at_once_share_the_connections(serve: Serve) -> None:
    server = serve(
        f"[limits]\nmax_streams = {_STREAMS}\nmax_connections = {-(-_WATCHES // _STREAMS)}\n",
        "--host=127.0.0.1",
    )
    async with AsyncClient(ConnectionOptions(server.target, transport="http2")) as client:
        job = await client.create_job(JobSpec(shell_command="sleep 60"), "one")
        watches = [client.watch_job(job.id) for _ in range(_WATCHES)]
        await asyncio.wait_for(asyncio.gather(*map(anext, watches)), 60)
        await client.cancel_job(job.id, kill=True, timeout=30)
        for watch in watches:
            await watch.aclose()


async def test_where_no_other_connection_is_to_be_had_calls_wait(serve: Serve) -> None:
    """They begin when others have ended."""
    server = serve("[limits]\nmax_streams = 1\nmax_connections = 1\n", "--host=127.0.0.1")
    async with AsyncClient(ConnectionOptions(server.target, transport="http2")) as client:
        job = await client.create_job(JobSpec(shell_command="sleep 60"), "one")
        watch = client.watch_job(job.id)
        await asyncio.wait_for(anext(watch), 30)
        asking = asyncio.create_task(client.get_job(job.id, timeout=60))
        await asyncio.wait([asking], timeout=0.5)
        assert not asking.done()
        await watch.aclose()
        assert (await asking).id == job.id
