"""Commands of wire version 1: how many ``true`` a second, and how long each call takes.

One unary call after another; one stream of 500; 8 streams of 200 at once; 32 unary callers at once. Over
plaintext, and over TLS with a token. Everything is a ratio to the bare loop in C of the same round, the
client included, which shares the machine's cores with the server.

The load comes from gRPC's own Python stubs without our client library, so that little of the time is the
client's: blocking calls where one waits for the other, ``grpc.aio`` where many are open at once. Requests
are made beforehand, and every answer is parsed and its exit code looked at. Streams and callers share one
connection, as they do in an Airflow triggerer. The rows "our client" do the same through
``remsvc.client``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from benchmarks import bare
from benchmarks.rows import Rounds, Row, percentile
from benchmarks.server import Server
from benchmarks.settings import Settings
from remsvc.client import AsyncClient, Client, protocol
from remsvc.command import Command
from remsvc_proto import RemSvc_pb2

if TYPE_CHECKING:
    UnaryMethod = grpc.UnaryUnaryMultiCallable[bytes, bytes]
    AsyncUnaryMethod = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    StreamMethod = grpc.aio.StreamStreamMultiCallable[bytes, bytes]

GROUP = "commands"
_TRUE = Command("true")
_REQUEST = protocol.encode_command(_TRUE, 1)
_STREAM, _STREAMS, _EACH, _CALLERS = 500, 8, 200, 32
_PERCENTILES = (50.0, 99.0, 99.9)


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    rounds = Rounds(GROUP, settings.rounds)
    bare.add(rounds, settings, GROUP, 500)
    rounds.add(bare.in_python(500), Row(GROUP, bare.IN_PYTHON, "/s", reference=bare.IN_C))
    calls = settings.amount(1000, 300)
    with ExitStack() as stack:
        plain = stack.enter_context(Server(settings, "plain"))
        secured = stack.enter_context(Server(settings, "tls", secured=True))
        for server, suffix in ((plain, ""), (secured, ", TLS and token")):
            load = Load(server)
            for name, target, measurement in (
                ("unary, one after another", 0.60, load.one_after_another),
                (f"{_CALLERS} unary callers", 1.25, load.callers),
            ):
                _add_unary(rounds, f"{name}{suffix}", target, measurement, calls)
            rounds.add(load.stream, _rate_row(f"one stream of {_STREAM}{suffix}", 0.85))
            rounds.add(load.streams, _rate_row(f"{_STREAMS} streams of {_EACH}{suffix}", 1.45))
        ours = OurClient(plain)
        rounds.add(lambda: ours.one_after_another(calls), _rate_row("unary, our client, one after another"))
        rounds.add(ours.stream, _rate_row(f"one stream of {_STREAM}, our client"))
        rounds.add(ours.streams, _rate_row(f"{_STREAMS} streams of {_EACH}, our client"))
        return rounds.run()


def _rate_row(name: str, target: float | None = None, note: str = "") -> Row:
    return Row(GROUP, name, "/s", reference=bare.IN_C, target=target, of_ratio=True, note=note)


def _add_unary(
    rounds: Rounds, name: str, target: float, measurement: Callable[[int], list[float]], calls: int
) -> None:
    """Calls per second, and percentiles of what single calls took."""
    latency_names = {percent: f"{name}: p{percent:g}" for percent in _PERCENTILES}

    def figures() -> dict[str, float]:
        started = time.perf_counter()
        taken = measurement(calls)
        rate = calls / (time.perf_counter() - started)
        return {name: rate} | {
            row: percentile(taken, percent) * 1000 for percent, row in latency_names.items()
        }

    note = f"of {calls} calls a round"
    latencies = [Row(GROUP, row, "ms", note=note) for row in latency_names.values()]
    rounds.add(figures, _rate_row(name, target), *latencies)


class Load:
    """Load on one server from gRPC's own stubs."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def one_after_another(self, count: int) -> list[float]:
        """Blocking calls; the seconds that each took."""
        metadata, taken = self._server.metadata, []
        with self._server.channel() as channel:
            run: UnaryMethod = channel.unary_unary(protocol.RUN)
            _check(run(_REQUEST, metadata=metadata))
            for _ in range(count):
                started = time.perf_counter()
                answer = run(_REQUEST, metadata=metadata)
                taken.append(time.perf_counter() - started)
                _check(answer)
        return taken

    def callers(self, count: int) -> list[float]:
        """Callers at once on one connection, each with one call after another; the seconds of each call."""
        return asyncio.run(self._callers(count))

    async def _callers(self, count: int) -> list[float]:
        metadata, taken, left = self._server.metadata, list[float](), count
        async with self._server.async_channel() as channel:
            run: AsyncUnaryMethod = channel.unary_unary(protocol.RUN)
            _check(await run(_REQUEST, metadata=metadata))

            async def caller() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    started = time.perf_counter()
                    answer = await run(_REQUEST, metadata=metadata)
                    taken.append(time.perf_counter() - started)
                    _check(answer)

            await asyncio.gather(*(caller() for _ in range(_CALLERS)))
        return taken

    def stream(self) -> float:
        """Commands per second of one stream."""
        return asyncio.run(self._at_once(1, _STREAM))

    def streams(self) -> float:
        """Commands per second of all streams together, on one connection."""
        return asyncio.run(self._at_once(_STREAMS, _EACH))

    async def _at_once(self, streams: int, count: int) -> float:
        metadata = self._server.metadata
        requests = [protocol.encode_command(_TRUE, tid) for tid in range(1, count + 1)]
        async with self._server.async_channel() as channel:
            run: StreamMethod = channel.stream_stream(protocol.RUN_STREAM)

            async def one(requests: list[bytes]) -> None:
                answered = 0
                async for answer in run(_each(requests), metadata=metadata):
                    _check(answer)
                    answered += 1
                if answered != len(requests):
                    raise RuntimeError(f"{answered} of {len(requests)} commands were answered")

            await one(requests[:1])
            return await _rate(streams * count, (one(requests) for _ in range(streams)))


class OurClient:
    """The same through ``remsvc.client``."""

    def __init__(self, server: Server) -> None:
        self._options = server.options

    def one_after_another(self, count: int) -> float:
        """Commands per second."""
        with Client(self._options) as client:
            client.run(_TRUE)
            started = time.perf_counter()
            for _ in range(count):
                if client.run(_TRUE).rc != 0:
                    raise RuntimeError("a command failed")
            return count / (time.perf_counter() - started)

    def stream(self) -> float:
        """Commands per second of one stream."""
        return asyncio.run(self._at_once(1, _STREAM))

    def streams(self) -> float:
        """Commands per second of all streams together, on one connection."""
        return asyncio.run(self._at_once(_STREAMS, _EACH))

    async def _at_once(self, streams: int, count: int) -> float:
        async with AsyncClient(self._options) as client:

            async def one() -> None:
                async for result in client.run_many([_TRUE] * count):
                    if result.rc != 0:
                        raise RuntimeError("a command failed")

            await client.run(_TRUE)
            return await _rate(streams * count, (one() for _ in range(streams)))


async def _rate(count: int, work: Iterable[Coroutine[object, object, None]]) -> float:
    """``count`` by the seconds that all of the work takes, done at once."""
    started = time.perf_counter()
    await asyncio.gather(*work)
    return count / (time.perf_counter() - started)


async def _each(requests: list[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


def _check(answer: bytes) -> None:
    message = RemSvc_pb2.RemResMsg.FromString(answer)
    if message.rc != 0:
        raise RuntimeError(f"a command failed: rc {message.rc}: {message.err}")
