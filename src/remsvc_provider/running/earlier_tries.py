"""Takes over or ends the jobs that earlier tries of a task have left on the server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from remsvc.client.jobs import Job, JobState, StateChange
from remsvc.errors import NotFoundError, ServerError
from remsvc.time_limit import TimeLimit
from remsvc_provider.log.task_log import TaskLog
from remsvc_provider.log.texts import shown_id
from remsvc_provider.origin import COMMAND, RUN_STARTED, TRY_NUMBER, Origin
from remsvc_provider.plan import Plan
from remsvc_provider.running.job_spec import same_job

if TYPE_CHECKING:
    from remsvc.client import AsyncClient

END_PATIENCE = 30.0
"""Seconds to wait for the end of a job that was cancelled, before its successor is created."""

_LONGEST_NUMBER = 9
"""Digits of a try or a command."""

_UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
_RUNS_OR_RAN = (*_UNFINISHED, JobState.SUCCEEDED)


async def settle(plan: Plan, origin: Origin, client: AsyncClient, task_log: TaskLog) -> dict[int, Job]:
    """Take over what may be taken over, and end the rest of what still runs.

    Once this try runs, nobody waits any more for what an earlier one has left running: its trigger was not
    told that it was killed, or could not reach the server.

    Returns:
        By command number, the jobs to use instead of new ones; nothing unless ``plan.options.durable``.

    Raises:
        ServerError: the server does not list them.
    """
    if origin.try_number <= 1 or RUN_STARTED not in origin.labels:
        return {}
    if origin.run_cleared:
        await _end_all(await _before_the_clear(plan, origin, client), plan, origin, client, task_log)
    jobs = client.list_jobs(
        states=() if plan.options.durable else _UNFINISHED, labels=origin.labels, metadata=plan.metadata
    )
    async with aclosing(jobs):
        earlier = [job async for job in jobs if _number(job, TRY_NUMBER) < origin.try_number]
    adopted = await _adopt(plan, origin, client, earlier) if plan.options.durable else {}
    for tid, job in adopted.items():
        earlier_try = _number(job, TRY_NUMBER)
        task_log.add(
            f"Command {tid} is taken over from try {earlier_try}: job {shown_id(job.id)}, {job.state}"
        )
    kept = {job.id for job in adopted.values()}
    left = [job for job in earlier if not job.ended and job.id not in kept]
    await _end_all(left, plan, origin, client, task_log)
    return adopted


async def _before_the_clear(plan: Plan, origin: Origin, client: AsyncClient) -> list[Job]:
    """What still runs of the DAG run as it was before Airflow started it over. There is nothing in it to
    take over: that a task is cleared means that its commands are to run again."""
    jobs = client.list_jobs(states=_UNFINISHED, labels=origin.task_labels, metadata=plan.metadata)
    async with aclosing(jobs):
        return [
            job
            async for job in jobs
            if _number(job, TRY_NUMBER) < origin.try_number and origin.began_before(job.spec.labels)
        ]


async def _end_all(
    jobs: list[Job], plan: Plan, origin: Origin, client: AsyncClient, task_log: TaskLog
) -> None:
    if plan.options.on_kill == "cancel":
        await asyncio.gather(*(_end(job, plan, origin, client, task_log) for job in jobs))


async def _adopt(plan: Plan, origin: Origin, client: AsyncClient, earlier: list[Job]) -> dict[int, Job]:
    """The newest job of each command, as far as it runs or has succeeded. Where commands follow each
    other, all after the first that must run again run again as well."""
    newest: dict[int, Job] = {}
    for job in earlier:  # newest first
        if _number(job, TRY_NUMBER) >= origin.first_try:
            newest.setdefault(_number(job, COMMAND), job)
    adopted = {}
    for tid, command in enumerate(plan.commands, 1):
        found = newest.get(tid)
        same = None
        if found is not None and found.state in _RUNS_OR_RAN:
            same = await same_job(client, found, command, plan.metadata)
        if same is not None:
            adopted[tid] = same
        elif plan.options.parallel == 1:
            break
    return adopted


async def _end(job: Job, plan: Plan, origin: Origin, client: AsyncClient, task_log: TaskLog) -> None:
    task_log.add(
        f"Job {shown_id(job.id)} of try {_number(job, TRY_NUMBER)} still runs: it is cancelled first",
        "warning",
    )
    try:
        # Repeated by the client alone: no failure of this call gets out of here, to be repeated once more.
        await client.cancel_job(
            job.id, reason=f"Airflow started try {origin.try_number}", metadata=plan.metadata
        )
        with TimeLimit(END_PATIENCE):
            await _ended(job, plan, client)
    except TimeoutError:
        task_log.add(f"Job {shown_id(job.id)} has not ended within {END_PATIENCE:g} s", "warning")
    except NotFoundError:
        pass
    except ServerError as error:
        task_log.add(f"Job {shown_id(job.id)} could not be cancelled: {error}", "warning")


async def _ended(job: Job, plan: Plan, client: AsyncClient) -> None:
    events = client.watch_job(job.id, stdout_offset=-1, stderr_offset=-1, metadata=plan.metadata)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, StateChange) and event.job.ended:
                return


def _number(job: Job, label: str) -> int:
    """Of a label, which may be anybody's; 0 for one that is none of ours."""
    text = job.spec.labels.get(label, "")
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_NUMBER else 0
