"""A client that has called a hostile server, and what the others in its event loop notice of that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.command import Command
from remsvc.errors import RemSvcError

_ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def hostile_servers() -> Iterator[dict[str, str]]:
    """The addresses of all kinds, each served by a process of its own for all of them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.client.hostile.answers"],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports = json.loads(process.stdout.readline())
        yield {kind: f"127.0.0.1:{port}" for kind, port in ports.items()}
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@dataclass
class Noticed:
    """What a good client and the loop's other tasks noticed; in seconds.

    Attributes:
        longest_wait: of the good client's calls.
        lag: the longest time by which a timer was late.
        calls: that the good client made.
        errors: how each of the hostile server's calls ended, in one line; empty where it did not fail.
        took: how long the longest of these went on.
    """

    longest_wait: float
    lag: float
    calls: int
    errors: list[str]
    took: float


async def _outcome(call: Callable[[], object]) -> str:
    try:
        result = call()
        if hasattr(result, "__aiter__"):
            async with contextlib.aclosing(result):  # type: ignore[type-var]
                async for _ in result:
                    pass
        else:
            await result  # type: ignore[misc]
    except RemSvcError as error:
        return str(error)
    return ""


async def beside(hostile: ConnectionOptions, good: ConnectionOptions, timeout: float) -> Noticed:
    """Call a hostile server in every way, and a good one meanwhile.

    Args:
        hostile: of whom nothing good comes.
        good: of whom every call must succeed.
        timeout: of each of the hostile server's calls.
    """
    noticed = Noticed(0.0, 0.0, 0, [], 0.0)
    over = asyncio.Event()

    async def call_the_good_one(client: AsyncClient) -> None:
        while not over.is_set():
            pong = await client.ping(timeout=30.0)
            noticed.calls += 1
            noticed.longest_wait = max(noticed.longest_wait, pong.round_trip)
            await asyncio.sleep(0.002)

    async def measure_lag() -> None:
        while not over.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            noticed.lag = max(noticed.lag, time.perf_counter() - began - 0.005)

    async with AsyncClient(good) as client, AsyncClient(hostile) as victim:
        await client.ping(timeout=30.0)
        others = [asyncio.create_task(call_the_good_one(client)), asyncio.create_task(measure_lag())]
        began = time.perf_counter()
        noticed.errors = list(
            await asyncio.gather(
                _outcome(lambda: victim.ping(timeout=timeout)),
                _outcome(lambda: victim.run(Command("true"), timeout=timeout)),
                _outcome(lambda: victim.run_many([Command("true")] * 3, timeout=timeout)),
                _outcome(lambda: victim.watch_job("0" * 32, timeout=timeout)),
            )
        )
        noticed.took = time.perf_counter() - began
        over.set()
        await asyncio.gather(*others)
    return noticed
