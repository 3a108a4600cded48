"""Durable jobs: how many a second from ``CreateJob`` to the end that ``WatchJob`` tells; how long each takes.

One job after another, and 32 at once; over plaintext, and over TLS with a token. Each is ``true`` in a
shell, claimed on disk (fsync) before it starts, and watched from its start to its end, output included.
Everything is a ratio to the bare loop in C of the same round, which writes nothing to any disk; the client
is included. The load comes from gRPC's own ``grpc.aio`` stubs, over one connection; every last event is
parsed and its state looked at. The rows "our client" do the same through ``remsvc.client``.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from benchmarks import bare
from benchmarks.machine import sync_ms
from benchmarks.rows import Rounds, Row, percentile
from benchmarks.server import Server
from benchmarks.settings import Settings
from remsvc.client import AsyncClient, job_protocol
from remsvc.client.jobs import JobSpec, StateChange
from remsvc.job_state import JobState
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

if TYPE_CHECKING:
    CreateMethod = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    WatchMethod = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]

GROUP = "durable"
_AT_ONCE = 32
_SPEC = JobSpec("true")
_PERCENTILES = (50.0, 99.0, 99.9)


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    rounds = Rounds(GROUP, settings.rounds)
    bare.add(rounds, settings, GROUP, 500)
    rounds.add(lambda: sync_ms(settings.folder), Row(GROUP, "an append of 4 KiB and its fsync", "ms"))
    jobs = settings.amount(500, 200)
    with ExitStack() as stack:
        plain = stack.enter_context(Server(settings, "plain"))
        secured = stack.enter_context(Server(settings, "tls", secured=True))
        for load, suffix, judged in (
            (_stubs(plain), "", True),
            (_stubs(secured), ", TLS and token", True),
            (_our_client(plain), ", our client", False),
        ):
            _add(rounds, load, f"one after another{suffix}", 1, jobs, 0.45 if judged else None)
            _add(rounds, load, f"{_AT_ONCE} at once{suffix}", _AT_ONCE, 2 * jobs, 0.9 if judged else None)
        delays = {percent: f"a line printed until a watcher has it: p{percent:g}" for percent in (50.0, 99.0)}
        lines = settings.amount(100, 50)

        def seen() -> dict[str, float]:
            taken = asyncio.run(_delays(plain, lines))
            return {row: percentile(taken, percent) * 1000 for percent, row in delays.items()}

        note = f"of {lines} lines a round, 20 ms apart"
        rounds.add(seen, *(Row(GROUP, row, "ms", note=note) for row in delays.values()))
        return rounds.run()


Load = Callable[[int, int], Coroutine[object, object, tuple[float, list[float]]]]
"""Runs so many jobs, so many at once: jobs per second, and the seconds that each took."""


def _add(rounds: Rounds, load: Load, name: str, width: int, jobs: int, target: float | None) -> None:
    latency_names = {percent: f"{name}: p{percent:g}" for percent in _PERCENTILES}

    def figures() -> dict[str, float]:
        rate, taken = asyncio.run(load(width, jobs))
        return {name: rate} | {
            row: percentile(taken, percent) * 1000 for percent, row in latency_names.items()
        }

    note = f"of {jobs} jobs a round"
    rate_row = Row(GROUP, name, "/s", reference=bare.IN_C, target=target, of_ratio=True)
    rounds.add(figures, rate_row, *(Row(GROUP, row, "ms", note=note) for row in latency_names.values()))


def _stubs(server: Server) -> Load:
    """Load from gRPC's own stubs."""

    async def load(width: int, jobs: int) -> tuple[float, list[float]]:
        metadata = server.metadata
        async with server.async_channel() as channel:
            create: CreateMethod = channel.unary_unary(job_protocol.CREATE)
            watch: WatchMethod = channel.unary_stream(job_protocol.WATCH)

            async def run_one() -> None:
                claim = job_protocol.encode_create(_SPEC, uuid.uuid4().hex)
                job = jobs_pb2.Job.FromString(await create(claim, metadata=metadata))
                request = jobs_pb2.WatchJobRequest(id=job.id).SerializeToString()
                *_, message = [message async for message in watch(request, metadata=metadata)]
                if jobs_pb2.WatchJobResponse.FromString(message).job.state != jobs_pb2.SUCCEEDED:
                    raise RuntimeError(f"job {job.id} did not succeed")

            return await _run(run_one, width, jobs)

    return load


def _our_client(server: Server) -> Load:
    """Load from ``remsvc.client``."""

    async def load(width: int, jobs: int) -> tuple[float, list[float]]:
        async with AsyncClient(server.options) as client:

            async def run_one() -> None:
                job = await client.create_job(_SPEC, uuid.uuid4().hex)
                *_, event = [event async for event in client.watch_job(job.id)]
                if not isinstance(event, StateChange) or event.job.state is not JobState.SUCCEEDED:
                    raise RuntimeError(f"job {job.id} did not succeed")

            return await _run(run_one, width, jobs)

    return load


async def _delays(server: Server, lines: int) -> list[float]:
    """Seconds from the time that is in a line to its arrival; the process that prints it ends in between."""
    text = f"for i in $(seq {lines}); do sleep 0.02; date +%s.%N; done"
    metadata, delays = server.metadata, list[float]()
    async with server.async_channel() as channel:
        create: CreateMethod = channel.unary_unary(job_protocol.CREATE)
        watch: WatchMethod = channel.unary_stream(job_protocol.WATCH)
        claim = job_protocol.encode_create(JobSpec(text), uuid.uuid4().hex)
        job = jobs_pb2.Job.FromString(await create(claim, metadata=metadata))
        request = jobs_pb2.WatchJobRequest(id=job.id).SerializeToString()
        async for message in watch(request, metadata=metadata):
            now = time.time()
            event = jobs_pb2.WatchJobResponse.FromString(message)
            delays += [now - float(line) for line in event.stdout.data.split()]
    if len(delays) != lines:
        raise RuntimeError(f"{len(delays)} of {lines} lines came")
    return delays


async def _run(
    run_one: Callable[[], Coroutine[object, object, None]], width: int, jobs: int
) -> tuple[float, list[float]]:
    taken, left = list[float](), jobs
    await run_one()

    async def one_after_another() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started = time.perf_counter()
            await run_one()
            taken.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(width)))
    return jobs / (time.perf_counter() - started), taken
