"""Many jobs at once: what 1, 10, 100 and 1,000 running jobs cost, each with a watcher.

Each job prints a line and sleeps. When every watcher has seen its job's line, the memory and the threads of
server and supervisors are read, and for some seconds a process of its own pings every 10 ms: how long does
a ``Ping`` take meanwhile? The growth of a job is what the server and its supervisors have more than before
the jobs, by the number of jobs. Each number gets a server of its own in each round. All watchers share one
connection, as in an Airflow triggerer.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from benchmarks.rows import Rounds, Row, percentile
from benchmarks.server import PingProbe, Server
from benchmarks.settings import Settings
from remsvc.client import job_protocol
from remsvc.client.jobs import JobSpec
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

if TYPE_CHECKING:
    UnaryMethod = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    WatchMethod = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]

GROUP = "scale"
_NUMBERS = (1, 10, 100, 1000)
_MOST_MEMORY = 250.0
_CONFIG = "[jobs]\nmax_running = 2000\n"
_SPEC = JobSpec("echo up; exec sleep 3600")
_IDLE_PING = "nothing runs: Ping p99"
_AT_ONCE = 50
"""Jobs that are created at the same time."""


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    rounds = Rounds(GROUP, settings.amount(2, 1))
    seconds = 3.0
    rounds.add(lambda: _idle_ping(settings, seconds), Row(GROUP, _IDLE_PING, "ms"))
    for number in _NUMBERS:
        _add(rounds, settings, number, seconds)
    return rounds.run()


def _add(rounds: Rounds, settings: Settings, number: int, seconds: float) -> None:
    name = f"{number:,} running and watched" if number > 1 else "1 running and watched"
    target = _MOST_MEMORY if number == max(_NUMBERS) else None
    rows = {
        "memory": Row(GROUP, f"{name}: memory", "MB", target=target, target_is="at most"),
        "server's growth": Row(GROUP, f"{name}: growth of the server for each", "kB"),
        "supervisors' growth": Row(GROUP, f"{name}: growth of the supervisors for each", "kB"),
        "threads": Row(GROUP, f"{name}: threads", ""),
        "ping": Row(GROUP, f"{name}: Ping p99 meanwhile", "ms", reference=_IDLE_PING),
        "started": Row(GROUP, f"{name}: time until all run and are watched", "s"),
    }

    def figures() -> dict[str, float]:
        with Server(settings, f"scale-{number}", config=_CONFIG) as server:
            found = asyncio.run(_crowd(server, number, seconds))
        return {rows[key].name: value for key, value in found.items()}

    rounds.add(figures, *rows.values(), seconds=120.0)


def _idle_ping(settings: Settings, seconds: float) -> float:
    with Server(settings, "scale-0", config=_CONFIG) as server, PingProbe(server) as probe:
        time.sleep(seconds)
    return percentile(probe.latencies_ms, 99)


async def _crowd(server: Server, number: int, seconds: float) -> dict[str, float]:
    async with server.async_channel() as channel:
        create: UnaryMethod = channel.unary_unary(job_protocol.CREATE)
        watch: WatchMethod = channel.unary_stream(job_protocol.WATCH)
        up, all_up = 0, asyncio.Event()
        may_create = asyncio.Semaphore(_AT_ONCE)

        async def one() -> None:
            nonlocal up
            async with may_create:
                answer = await create(job_protocol.encode_create(_SPEC, uuid.uuid4().hex))
            job = jobs_pb2.Job.FromString(answer)
            async for message in watch(jobs_pb2.WatchJobRequest(id=job.id).SerializeToString()):
                event = jobs_pb2.WatchJobResponse.FromString(message)
                if event.WhichOneof("event") == "stdout":
                    up += 1
                    if up == number:
                        all_up.set()
            raise RuntimeError(f"job {job.id} has ended")

        await channel.channel_ready()
        before, started = server.memory(), time.perf_counter()
        watchers = [asyncio.create_task(one()) for _ in range(number)]
        try:
            await _unless_one_ends(all_up.wait(), watchers)
            taken = time.perf_counter() - started
            with PingProbe(server) as probe:
                await _unless_one_ends(asyncio.sleep(seconds), watchers)
            after, threads = server.memory(), server.threads()
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.wait(watchers)
    return {
        "memory": after.total,
        "server's growth": (after.server - before.server) * 1000 / number,
        "supervisors' growth": (after.supervisors - before.supervisors) * 1000 / number,
        "threads": threads,
        "ping": percentile(probe.latencies_ms, 99),
        "started": taken,
    }


async def _unless_one_ends(
    wait: Coroutine[object, object, object], watchers: Sequence[asyncio.Task[None]]
) -> None:
    """Wait for something, during which no watcher may end."""
    waiting = asyncio.create_task(wait)
    everything: list[asyncio.Task[Any]] = [waiting, *watchers]
    try:
        await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        for watcher in watchers:
            if watcher.done():
                watcher.result()
    finally:
        waiting.cancel()
