"""Fifty coroutines that want to be called every 50 ms in a triggerer's event loop: for ``log_flood.py``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

TICKERS, TICK = 50, 0.05


class TickProbe(BaseTrigger):
    """Ticks until there is a file ``PATH.stop``, and writes to PATH how many seconds late each tick was, one
    a line."""

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.airflow.tick_probe.TickProbe", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        late: list[float] = []
        stop = Path(f"{self.path}.stop")

        async def tick() -> None:
            while not stop.exists():  # noqa: ASYNC240 - in memory
                asked = time.monotonic()
                await asyncio.sleep(TICK)
                late.append(time.monotonic() - asked - TICK)

        await asyncio.gather(*(tick() for _ in range(TICKERS)))
        Path(self.path).write_text("".join(f"{seconds}\n" for seconds in late))  # noqa: ASYNC240
        yield TriggerEvent(None)


class TickOperator(BaseOperator):
    """Defers to a :class:`TickProbe`."""

    def __init__(self, *, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    def execute(self, context: Any) -> None:
        self.defer(trigger=TickProbe(path=self.path), method_name="end")

    def end(self, context: Any, event: Any) -> None:
        """Nothing is left to be done."""
