"""Triggers that measure the event loop of the triggerer that runs them; see ``triggerer_loop.py``."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

TICK = 0.01
LATE = 0.05


class LoopProbe(BaseTrigger):
    """Asks every 10 ms to be called, and writes how much later it was.

    The file gets lines of ``KIND TIME SECONDS``: ``lag``, or ``gc`` for a run of the garbage collector,
    which all of the process waits for. TIME is that of the system's monotonic clock. A thread looks at
    what the loop does while it is late: each time, a line of the kind ``provider`` or ``airflow``.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "loop_probe.LoopProbe", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        lines: list[str] = []
        collection = 0.0
        called = time.monotonic()
        ended = threading.Event()
        loop_thread = threading.get_ident()

        def look() -> None:
            while not ended.wait(TICK):
                now = time.monotonic()
                if now - called > LATE:
                    stack = traceback.extract_stack(sys._current_frames()[loop_thread])
                    ours = any("remsvc" in frame.filename for frame in stack)
                    lines.append(f"{'provider' if ours else 'airflow'} {now:.4f} {now - called:.4f}\n")

        def collected(phase: str, _: Any) -> None:
            nonlocal collection
            now = time.monotonic()
            if phase == "stop":
                lines.append(f"gc {now:.4f} {now - collection:.4f}\n")
            collection = now

        gc.callbacks.append(collected)
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
