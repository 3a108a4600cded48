"""The operator's trigger, which notes when it takes its first step, and when it has its command in view."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from airflow.triggers.base import TriggerEvent

from remsvc.client.aio_jobs import AsyncJobCalls
from remsvc.client.jobs import WatchEvent
from remsvc_provider.triggers.remsvc import RemSvcTrigger


class TimedTrigger(RemSvcTrigger):
    """Writes a line ``REQUEST_ID TIME`` to the file ``TRACE.steps`` when it begins, TIME being seconds since
    the epoch, and a line ``JOB_ID`` to ``TRACE.watched`` when the server has told it how its job is.

    Args:
        trace: the beginning of the file's name.
        arguments: of the operator's trigger.
    """

    def __init__(self, *, trace: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.trace = trace
        self._asked_as = f"{arguments['origin']['request_id']}/1"
        _note_watches(trace)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, arguments = super().serialize()
        return "benchmarks.airflow.timed_trigger.TimedTrigger", {**arguments, "trace": self.trace}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        now = time.time()
        _write(f"{self.trace}.steps", f"{self._asked_as} {now:.6f}")
        async for event in super().run():
            yield event


_watch_job = AsyncJobCalls.watch_job


def _note_watches(trace: str) -> None:
    async def watch_job(
        client: AsyncJobCalls, job_id: str, **options: Any
    ) -> AsyncGenerator[WatchEvent, None]:
        noted = False
        async with aclosing(_watch_job(client, job_id, **options)) as events:
            async for event in events:
                if not noted:
                    noted = True
                    _write(f"{trace}.watched", job_id)
                yield event

    AsyncJobCalls.watch_job = watch_job  # type: ignore[method-assign]


def _write(path: str, line: str) -> None:
    with open(path, "a") as file:  # noqa: PTH123 - as little as can be
        file.write(f"{line}\n")
