"""A sequential stream of ``true`` commands against a bare ``posix_spawn`` loop.

    python benchmarks/sequential_commands.py [--commands 1000] [--rounds 7]

Prints commands per second of both, measured alternately in one run, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.command import Command


def bare(count: int) -> float:
    """Commands per second of a loop that only spawns and reaps ``/bin/sh -c true``."""
    started = time.perf_counter()
    for _ in range(count):
        os.waitpid(os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "true"], os.environ), 0)
    return count / (time.perf_counter() - started)


async def stream(target: str, count: int) -> float:
    """Commands per second of one stream."""
    commands = [Command("true")] * count
    async with AsyncClient(ConnectionOptions(target)) as client:
        await client.ping()
        started = time.perf_counter()
        async for result in client.run_many(commands, timeout=600):
            if result.rc != 0:
                raise SystemExit(f"command {result.tid}: rc {result.rc}: {result.err}")
        return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "remsvc", "serve", "--port", "0", "--state-dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            target = server.stdout.readline().removeprefix("listening on ").strip()
            ratios = []
            for _ in range(arguments.rounds):
                reference = bare(arguments.commands)
                rate = asyncio.run(stream(target, arguments.commands))
                ratios.append(rate / reference)
                print(f"bare {reference:6.0f}/s  stream {rate:6.0f}/s  ratio {ratios[-1]:.2f}")
        finally:
            server.terminate()
            server.wait()
    print(f"median ratio {statistics.median(ratios):.2f} (lowest {min(ratios):.2f})")


if __name__ == "__main__":
    main()
