"""Who stops listening stops the command; and nothing stays behind."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator

import grpc
import pytest

from remsvc.client import AsyncClient, Client, ConnectionOptions
from remsvc.command import Command
from remsvc.errors import UnavailableError

from .conftest import DEADLINE, Connect
from .scripted_server import ScriptedServer, answer, command, succeed

Scripted = Callable[..., ScriptedServer]

COMMANDS = [Command("true")] * 5


class Endless:
    """Answers the first command of a stream, then waits for the call's end; so does a unary call."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()

    def run(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(self.ended.set)
        self.started.set()
        self.ended.wait(DEADLINE)
        return answer()

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(self.ended.set)  # before the first answer: the client may leave at once
        yield answer(tid=command(next(requests)).tid)
        self.started.set()
        self.ended.wait(DEADLINE)


@pytest.fixture
def endless() -> Endless:
    return Endless()


async def started(endless: Endless) -> None:
    assert await asyncio.to_thread(endless.started.wait, DEADLINE)


async def test_cancelling_the_consumer_of_a_stream_cancels_the_call(
    scripted: Scripted, endless: Endless, transport: str
) -> None:
    options = ConnectionOptions(scripted(stream=endless.stream).target, transport=transport)
    async with AsyncClient(options) as client:
        seen = []

        async def consume() -> None:
            seen.extend([result.tid async for result in client.run_many(COMMANDS)])

        consumer = asyncio.create_task(consume())
        await started(endless)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        assert seen == []
        assert await asyncio.to_thread(endless.ended.wait, DEADLINE)


async def test_cancelling_run_cancels_the_call(scripted: Scripted, endless: Endless, transport: str) -> None:
    options = ConnectionOptions(scripted(run=endless.run).target, transport=transport)
    async with AsyncClient(options) as client:
        running = asyncio.create_task(client.run(Command("true")))
        await started(endless)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.to_thread(endless.ended.wait, DEADLINE)


async def test_cancelling_while_connecting_ends_at_once(transport: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        options = ConnectionOptions(f"127.0.0.1:{listener.getsockname()[1]}", transport=transport)
        async with AsyncClient(options) as client:
            running = asyncio.create_task(client.run(Command("true")))
            await asyncio.sleep(0.05)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running


def test_closing_the_iterator_early_cancels_the_call(
    scripted: Scripted, connect: Connect, endless: Endless
) -> None:
    with connect(ConnectionOptions(scripted(stream=endless.stream).target)) as client:
        results = client.run_many(COMMANDS)
        assert next(results).tid == 1
        results.close()  # type: ignore[attr-defined]
        assert endless.ended.wait(DEADLINE)


async def test_closing_the_client_ends_its_calls(
    scripted: Scripted, endless: Endless, transport: str
) -> None:
    client = AsyncClient(ConnectionOptions(scripted(run=endless.run).target, transport=transport))
    running = asyncio.create_task(client.run(Command("true")))
    await started(endless)
    await client.close()
    await asyncio.wait([running], timeout=DEADLINE)
    assert running.done()
    assert await asyncio.to_thread(endless.ended.wait, DEADLINE)


async def test_no_task_stays_behind(scripted: Scripted, transport: str) -> None:
    before = asyncio.all_tasks()
    async with AsyncClient(ConnectionOptions(scripted(stream=succeed).target, transport=transport)) as client:
        for stop_at in range(1, 6):
            results = client.run_many(COMMANDS)
            async for result in results:
                if result.tid == stop_at:
                    break
            await results.aclose()
    if left := asyncio.all_tasks() - before:
        _, pending = await asyncio.wait(left, timeout=DEADLINE)
        assert not pending


def test_the_blocking_client_ends_the_threads_it_starts(
    scripted: Scripted,
    endless: Endless,
    eventually: Callable[[Callable[[], object]], None],
    transport: str,
) -> None:
    server, stuck = scripted(stream=succeed), scripted(stream=endless.stream)

    def threads() -> set[threading.Thread]:
        # The scripted servers' own ones aside.
        return {thread for thread in threading.enumerate() if "ThreadPool" not in thread.name}

    before = threads()
    with Client(ConnectionOptions(server.target, transport=transport)) as client:
        list(client.run_many(COMMANDS))
    with Client(ConnectionOptions(stuck.target, transport=transport)) as client:
        results = client.run_many(COMMANDS)
        assert next(results).tid == 1
        results.close()
    nobody = ConnectionOptions("127.0.0.1:1", transport=transport)
    with Client(nobody) as client, pytest.raises(UnavailableError):
        client.run(COMMANDS[0])
    eventually(lambda: threads() <= before)
