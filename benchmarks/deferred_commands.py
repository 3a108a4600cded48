"""A thousand deferred commands in one event loop, as a triggerer has them.

    python benchmarks/deferred_commands.py [--commands 1000] [--seconds 15] [--lines 3]

Each command prints its lines over the given time. Prints, for the time until all have ended, how long
the loop was ever held up, and how much of that was Python's garbage collector, which has all of Airflow
to look at.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

HOME = tempfile.mkdtemp(prefix="remsvc-benchmark-")
os.environ["AIRFLOW_HOME"] = HOME

from remsvc_provider.origin import Origin  # noqa: E402
from remsvc_provider.triggers.remsvc import RemSvcTrigger  # noqa: E402

TICK = 0.01


class HeldUp:
    """Measures how much later than asked for the loop comes back."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self.collections: list[float] = []
        self._started = 0.0
        gc.callbacks.append(self._collected)

    async def measure(self) -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(TICK)
            self.gaps.append(time.perf_counter() - started - TICK)

    def _collected(self, phase: str, _: Any) -> None:
        if phase == "start":
            self._started = time.perf_counter()
        else:
            self.collections.append(time.perf_counter() - self._started)

    def __str__(self) -> str:
        gaps = sorted(self.gaps)
        mostly = gaps[len(gaps) * 99 // 100] * 1000
        return (
            f"held up at most {gaps[-1] * 1000:.0f} ms (99 % of the time {mostly:.1f}), "
            f"of which the garbage collector at most {max(self.collections, default=0.0) * 1000:.0f} ms"
        )


async def run(commands: int, cmd: str) -> list[str]:
    """The states in which the commands' triggers end."""

    async def one(number: int) -> str:
        origin = Origin(f"benchmark/{uuid.uuid4()}", {"benchmark": str(number)})
        trigger = RemSvcTrigger(
            commands=[{"cmd": cmd}], grpc_conn_id="remsvc_benchmark", origin=origin.arguments()
        )
        state = ""
        async for event in trigger.run():
            state = event.payload["state"]
        await trigger.cleanup()
        return state

    running = []
    for number in range(commands):
        running.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0)  # as the triggerer does it
    return await asyncio.gather(*running)


async def measured(commands: int, cmd: str) -> None:
    await run(1, "true")  # imports, and the connection
    held_up = HeldUp()
    measuring = asyncio.create_task(held_up.measure())
    started = time.perf_counter()
    states = await run(commands, cmd)
    seconds = time.perf_counter() - started
    measuring.cancel()
    with suppress(asyncio.CancelledError):
        await measuring
    assert states == ["SUCCESS"] * commands
    print(f"{commands} commands in {seconds:.1f} s: {held_up}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--lines", type=int, default=3)
    arguments = parser.parse_args()
    config = Path(HOME, "server.ini")
    config.write_text("[jobs]\nmax_running = 5000\n[server]\nport = 0\n[log]\nlevel = warning\n")
    command = [
        sys.executable,
        "-m",
        "remsvc",
        "serve",
        "--config",
        str(config),
        "--state-dir",
        HOME + "/state",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        target = server.stdout.readline().removeprefix("listening on ").strip()
        os.environ["AIRFLOW_CONN_REMSVC_BENCHMARK"] = f"remsvc://{target}"
        pause = arguments.seconds / arguments.lines
        cmd = f"for n in $(seq {arguments.lines}); do echo line $n; sleep {pause}; done"
        asyncio.run(measured(arguments.commands, cmd))
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(HOME, ignore_errors=True)


if __name__ == "__main__":
    main()
