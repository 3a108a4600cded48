"""Cancel a job, and all processes that it has started. With asyncio.

    python examples/client/cancel.py

``run.py`` says how the server is named.
"""

from __future__ import annotations

import asyncio
import uuid

from run import options_from_environment

from remsvc.client import AsyncClient, Job, JobSpec, JobState, StateChange
from remsvc.errors import RemSvcError


async def state_reached(client: AsyncClient, job_id: str, *states: JobState) -> Job:
    """Wait until a job is in one of these states, or has ended."""
    async for event in client.watch_job(job_id, stdout_offset=-1, stderr_offset=-1):  # without its output
        if isinstance(event, StateChange) and (event.job.state in states or event.job.ended):
            return event.job
    raise AssertionError("a watch ends with the job's end, or with an error")


async def main() -> None:
    async with AsyncClient(options_from_environment().for_jobs()) as client:
        # TERM comes first. What has not ended 5 seconds later is killed.
        job = await client.create_job(JobSpec("sleep 600 & sleep 600", kill_grace=5), str(uuid.uuid4()))
        await state_reached(client, job.id, JobState.RUNNING)
        print(f"job {job.id} runs")
        await client.cancel_job(job.id, reason="not needed any more")  # returns at once
        job = await state_reached(client, job.id)
        print(f"job {job.id}: {job.state}: {job.reason}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except RemSvcError as error:
        raise SystemExit(f"error: {error}") from error
