"""Knows which jobs of a run have not ended, as far as is known, and ends them when nobody waits any more."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from remsvc.client import AsyncClient
from remsvc.client.jobs import Job, JobState
from remsvc.errors import NotFoundError, RemSvcError
from remsvc.time_limit import TimeLimit
from remsvc_provider.log.task_log import TaskLog
from remsvc_provider.log.texts import shown_id
from remsvc_provider.origin import TRY_NUMBER, Origin
from remsvc_provider.plan import Plan
from remsvc_provider.running.access import ServerAccess
from remsvc_provider.running.plan_jobs import PlanJobs

CANCEL_TIMEOUT = 10.0
"""Seconds to find the jobs that have not ended, and to order their end."""

_NOT_KNOWN = "whether anything still runs is not known"
_CANCELLED = "what ran was cancelled"


class OpenJobs:
    """The jobs of one run that have not ended, as far as it knows, by command number.

    Args:
        plan: what runs.
        origin: who asks.
        access: to the server.
        jobs: those that the run has asked for.
        task_log: tells what becomes of them.
    """

    def __init__(
        self, plan: Plan, origin: Origin, access: ServerAccess, jobs: PlanJobs, task_log: TaskLog
    ) -> None:
        self._plan = plan
        self._origin = origin
        self._access = access
        self._jobs = jobs
        self._task_log = task_log
        self._ids: dict[int, str] = {}
        self._any = False
        self._fates: set[str] = set()

    @property
    def any(self) -> bool:
        """Whether there is one, or was one."""
        return self._any

    def add(self, tid: int, job: Job) -> None:
        """Take notice of a command's job."""
        self._any = True
        self._ids[tid] = job.id

    def id_of(self, tid: int) -> str | None:
        """The id of a command's job, if that has not ended."""
        return self._ids.get(tid)

    def ended(self, tid: int, job: Job) -> None:
        """Take notice that a command's job has ended."""
        del self._ids[tid]
        if job.state is JobState.TIMED_OUT:
            self._fates.add(_CANCELLED)

    async def cancel(self, reason: str) -> str:
        """End all of them.

        Args:
            reason: for people.

        Returns:
            What became of them, for a person.
        """
        try:
            with TimeLimit(CANCEL_TIMEOUT):
                await self._cancel_all(reason)
        except TimeoutError:
            self._fates.add(_NOT_KNOWN)
            self._task_log.add(
                "The server does not answer; what still runs is ended by its time limit", "error"
            )
        return ", ".join(sorted(self._fates)) or "nothing was running"

    async def _cancel_all(self, reason: str) -> None:
        self._ids |= await self._jobs.unfinished()
        try:
            self._ids |= await self._access.call(self._created_before)
        except RemSvcError as error:
            self._fates.add(_NOT_KNOWN)
            self._task_log.add(f"The server's jobs could not be listed: {error}", "warning")
        self._any = self._any or bool(self._ids)
        await asyncio.gather(*(self._cancel(tid, job, reason) for tid, job in self._ids.items()))

    async def _created_before(self, client: AsyncClient) -> dict[int, str]:
        """The jobs of this try that have not ended, by command number: this trigger may have been started
        again, and cut off before it has found them."""
        jobs = client.list_jobs(
            states=(JobState.QUEUED, JobState.RUNNING),
            labels={**self._origin.labels, TRY_NUMBER: str(self._origin.try_number)},
            timeout=CANCEL_TIMEOUT,
            metadata=self._plan.metadata,
        )
        tids = {self._origin.command_id(tid): tid for tid in range(1, len(self._plan.commands) + 1)}
        async with aclosing(jobs):
            return {tids[job.request_id]: job.id async for job in jobs if job.request_id in tids}

    async def _cancel(self, tid: int, job_id: str, reason: str) -> None:
        try:
            job = await self._access.call(
                lambda client: client.cancel_job(
                    job_id, reason=reason, timeout=CANCEL_TIMEOUT, metadata=self._plan.metadata
                )
            )
        except NotFoundError:
            return
        except RemSvcError as error:
            self._fates.add("what runs could not be cancelled")
            self._task_log.add(
                f"Command {tid}: job {shown_id(job_id)} could not be cancelled, its time limit ends it: "
                f"{error}",
                "error",
            )
            return
        if job.started_at is None and job.state is JobState.CANCELLED:
            self._fates.add("what waited for its turn was withdrawn")
            self._task_log.add(
                f"Command {tid}: job {shown_id(job_id)} had not begun, and is withdrawn: {reason}", "warning"
            )
        elif job.ended and job.state is not JobState.CANCELLED:
            self._task_log.add(
                f"Command {tid}: job {shown_id(job_id)} has just ended as {job.state}", "warning"
            )
        else:
            self._fates.add(_CANCELLED)
            self._task_log.add(f"Command {tid}: job {shown_id(job_id)} is cancelled: {reason}", "warning")
