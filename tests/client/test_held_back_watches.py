"""Watches whose readers take their time: they hold up nobody else on their connection, and lose nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from remsvc.client import AsyncClient, ConnectionOptions
from remsvc.client.jobs import JobSpec, JobState, OutputChunk, StateChange
from remsvc.time_limit import TimeLimit
from tests.conftest import DEADLINE, Serve


async def _ended(client: AsyncClient, job_id: str) -> Any:
    async with aclosing(client.watch_job(job_id, stdout_offset=-1, stderr_offset=-1)) as events:
        return [event async for event in events][-1]


async def _output(events: Any, begun: int = 0) -> tuple[int, JobState]:
    """How much comes, with what had come before, and the state at the end."""
    size, state = begun, JobState.RUNNING
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


@pytest.mark.parametrize("count", [40, 150])
async def test_many_that_are_held_back_hold_up_nobody(serve: Serve, transport: str, count: int) -> None:
    """Whatever waits for their readers, on the server or here, leaves room for the others."""
    size = 3_000_000
    options = ConnectionOptions(serve("[jobs]\nmax_running = 100\n").target, transport=transport)
    async with AsyncExitStack() as stack:
        stack.enter_context(TimeLimit(DEADLINE))
        client = await stack.enter_async_context(AsyncClient(options))
        large = await client.create_job(JobSpec(shell_command=f"head -c {size} /dev/zero"), "large")
        await _ended(client, large.id)
        held = []
        for _ in range(count):
            watch = await stack.enter_async_context(aclosing(client.watch_job(large.id)))
            while not isinstance(first := await anext(watch), OutputChunk):
                pass
            held.append((watch, len(first.data)))
        other = await client.create_job(
            JobSpec(shell_command=f"head -c {size} /dev/zero; sleep 0.1; echo"), "other"
        )
        assert await _output(client.watch_job(other.id)) == (size + 1, JobState.SUCCEEDED)
        for watch, begun in held[:3]:  # and nothing of them is lost
            assert await _output(watch, begun) == (size, JobState.SUCCEEDED)
