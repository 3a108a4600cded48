"""Triggers that measure the event loop of the triggerer that runs them; see ``triggerer_loop.py``."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

TICK = 0.01


class LoopProbe(BaseTrigger):
    """Asks every 10 ms to be called, and writes how much later it was.

    The file gets lines of ``KIND TIME SECONDS``: ``lag``, or ``gc`` for a run of the garbage collector,
    which all of the process waits for. TIME is that of the system's monotonic clock.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "loop_probe.LoopProbe", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        lines: list[str] = []
        collection = 0.0

        def collected(phase: str, _: Any) -> None:
            nonlocal collection
            now = time.monotonic()
            if phase == "stop":
                lines.append(f"gc {now:.4f} {now - collection:.4f}\n")
            collection = now

        gc.callbacks.append(collected)
        try:
            with open(self.path, "a", buffering=1 << 20) as file:  # noqa: ASYNC230, PTH123 - as little as can be
                while True:
                    for _ in range(100):
                        asked = time.monotonic()
                        await asyncio.sleep(TICK)
                        now = time.monotonic()
                        lines.append(f"lag {now:.4f} {now - asked - TICK:.4f}\n")
                    file.writelines(lines)
                    file.flush()
                    lines.clear()
        finally:
            gc.callbacks.remove(collected)
        yield TriggerEvent(None)


class Sleeper(BaseTrigger):
    """Does nothing for a while: what a trigger costs Airflow."""

    def __init__(self, *, seconds: float, trace: str) -> None:
        super().__init__()
        self.seconds, self.trace = seconds, trace

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "loop_probe.Sleeper", {"seconds": self.seconds, "trace": self.trace}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self._note("started")
        await asyncio.sleep(self.seconds)
        self._note("ended")
        yield TriggerEvent({"state": "SUCCESS", "results": {}, "error_msg": None})

    def _note(self, what: str) -> None:
        with open(f"{self.trace}.{what}", "a") as file:  # noqa: PTH123
            file.write("x\n")
