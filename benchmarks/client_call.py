"""What an empty call costs the asyncio client, in CPU time of its process, for both transports.

    python benchmarks/client_call.py [--calls 5000] [--rounds 3]

The server is a process of its own; all addresses are 127.0.0.1. Times are microseconds a call.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time

from remsvc.client import AsyncClient, ConnectionOptions


async def _cost(target: str, transport: str, calls: int, callers: int) -> float:
    async with AsyncClient(ConnectionOptions(target, transport=transport)) as client:

        async def call(count: int) -> None:
            for _ in range(count):
                await client.ping(timeout=None)

        await call(200)
        began = time.process_time()
        await asyncio.gather(*(call(calls // callers) for _ in range(callers)))
        return (time.process_time() - began) / (calls // callers * callers) * 1e6


def main() -> None:
    """Measure, and print a line for each transport and number of callers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "remsvc", "serve", "--port", "0", "--state-dir", directory]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert server.stdout is not None
        target = server.stdout.readline().decode().removeprefix("listening on ").strip()
        try:
            for callers in (1, 32):
                for transport in ("http2", "grpc"):
                    costs = [
                        asyncio.run(_cost(target, transport, arguments.calls, callers))
                        for _ in range(arguments.rounds)
                    ]
                    print(f"{transport:5} {callers:2} callers {statistics.median(costs):6.0f} µs", flush=True)
        finally:
            server.terminate()
            server.wait(60)
            server.stdout.close()


if __name__ == "__main__":
    main()
