"""Watches whose readers take their time: they hold up nobody else on their connection, and lose nothing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.client.jobs import JobSpec, JobState, OutputChunk, StateChange
from tests.conftest import Serve


async def _ended(client: AsyncClient, job_id: str) -> Any:
    async with aclosing(client.watch_job(job_id, stdout_offset=-1, stderr_offset=-1)) as events:
        return [event async for event in events][-1]


async def _output(events: Any) -> tuple[int, JobState]:
    """How much comes, and the state at the end."""
    size, state = 0, JobState.RUNNING
    async for event in events:
        if isinstance(event, OutputChunk):
            assert event.offset == size
            size += len(event.data)
        elif isinstance(event, StateChange):
            state = event.job.state
    return size, state


async def test_one_that_is_held_back_beside_fifty(serve: Serve, transport: str) -> None:
    size = 50_000_000
    options = ConnectionOptions(serve("[jobs]\nmax_running = 100\n").target, transport=transport)
    async with AsyncClient(options) as client:
        large = await client.create_job(JobSpec(shell_command=f"head -c {size} /dev/zero"), "large")
        await _ended(client, large.id)
        async with aclosing(client.watch_job(large.id)) as held:
            while not isinstance(first := await anext(held), OutputChunk):
                pass
            ticking = "for n in 1 2 3 4 5 6 7 8 9; do echo $n; sleep 0.02; done"
            jobs = [await client.create_job(JobSpec(shell_command=ticking), f"tick{n}") for n in range(50)]
            outputs = await asyncio.gather(*(_output(client.watch_job(job.id)) for job in jobs))
            assert outputs == [(18, JobState.SUCCEEDED)] * 50
            rest = len(first.data)
            async for event in held:
                if isinstance(event, OutputChunk):
                    assert event.offset == rest
                    rest += len(event.data)
            assert rest == size
