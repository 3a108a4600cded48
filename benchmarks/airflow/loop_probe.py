"""Triggers that measure the event loop of the triggerer that runs them: for ``deferred_tasks.py``."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

TICK = 0.01
LATE = 0.02
OURS = "/remsvc_provider/"
"""In the path of every module of the provider."""


class LoopProbe(BaseTrigger):
    """Asks every 10 ms to be called, and writes how much later it was.

    The file gets lines of ``KIND TIME SECONDS``, TIME being that of the system's monotonic clock: ``lag``
    for each call, and before it ``ours`` each time that a thread, which looks on while the loop is late,
    finds it in the provider's code; SECONDS are those between two looks.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.airflow.loop_probe.LoopProbe", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        lines: list[str] = []
        called = time.monotonic()
        ended = threading.Event()
        loop_thread = threading.get_ident()

        def look() -> None:
            while not ended.wait(TICK):
                now = time.monotonic()
                if now - called > LATE and _in_the_provider(sys._current_frames()[loop_thread]):
                    lines.append(f"ours {now:.4f} {TICK}\n")

        looking = threading.Thread(target=look)
        looking.start()
        try:
            with open(self.path, "a", buffering=1 << 20) as file:  # noqa: ASYNC230, PTH123 - as little as can be
                while True:
                    for _ in range(100):
                        asked = time.monotonic()
                        await asyncio.sleep(TICK)
                        now = called = time.monotonic()
                        lines.append(f"lag {now:.4f} {now - asked - TICK:.4f}\n")
                    file.writelines(lines)
                    file.flush()
                    lines.clear()
        finally:
            ended.set()
            looking.join()
        yield TriggerEvent(None)


def _in_the_provider(frame: FrameType | None) -> bool:
    while frame is not None:
        if OURS in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


class Sleeper(BaseTrigger):
    """Does nothing until the file ``TRACE.stop`` is there, and up to five seconds more: what a trigger costs
    Airflow."""

    def __init__(self, *, trace: str) -> None:
        super().__init__()
        self.trace = trace

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.airflow.loop_probe.Sleeper", {"trace": self.trace}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self._note("started")
        await _stopped(f"{self.trace}.stop")
        await asyncio.sleep(random.uniform(0, 4))
        self._note("ended")
        yield TriggerEvent({"state": "SUCCESS", "results": {}, "error_msg": None})

    def _note(self, what: str) -> None:
        with open(f"{self.trace}.{what}", "a") as file:  # noqa: PTH123
            file.write("x\n")


_watches: dict[str, asyncio.Task[None]] = {}


async def _stopped(path: str) -> None:
    """Wait for a file; one looks for all who wait."""

    async def look() -> None:
        while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240, PTH110 - as little as can be
            await asyncio.sleep(1)

    if path not in _watches:
        _watches[path] = asyncio.create_task(look())
    await asyncio.shield(_watches[path])
