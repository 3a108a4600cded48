"""Gets the job of each command: one of this try, one that an earlier try has left, or a new one."""

from __future__ import annotations

import asyncio

from remsvc.client.jobs import Job, JobState
from remsvc.errors import AlreadyExistsError, NotFoundError, ResourceExhaustedError, ServerError
from remsvc_provider.log.task_log import TaskLog
from remsvc_provider.log.texts import shown_id
from remsvc_provider.origin import Origin
from remsvc_provider.plan import Plan
from remsvc_provider.running import earlier_tries
from remsvc_provider.running.job_spec import TIME_LIMIT, job_spec, same_job
from remsvc_provider.running.patience import Patience
from remsvc_provider.running.time_budget import TimeBudget


class PlanJobs:
    """The jobs of a plan's commands, asked for by the commands' numbers. :meth:`close` it.

    Args:
        plan: what is to run.
        origin: who asks.
        patience: makes the calls.
        budget: tells how much time is left for a new job.
    """

    def __init__(self, plan: Plan, origin: Origin, patience: Patience, budget: TimeBudget) -> None:
        self._plan = plan
        self._origin = origin
        self._patience = patience
        self._budget = budget
        self._found: dict[int, Job | None] = {}
        self._adopted: dict[int, Job] = {}
        self._creations: dict[int, asyncio.Task[Job]] = {}

    @property
    def under_way(self) -> bool:
        """Whether the server was asked to create a job, and has not answered yet."""
        return bool(self._creations)

    async def look(self) -> None:
        """Ask for the job that this try may have created for the first command already. As this is the first
        question about jobs, it also shows whether the server knows any.

        Raises:
            UnimplementedError: the server knows no durable jobs.
        """
        self._found[1] = await self._find(1)

    async def adopt(self, task_log: TaskLog) -> None:
        """Take over what earlier tries have left, where the plan says so; ``task_log`` tells of it."""
        self._adopted = await self._patience.insist(
            lambda client: earlier_tries.settle(self._plan, self._origin, client, task_log)
        )

    async def obtain(self, tid: int) -> tuple[Job, str]:
        """Get a command's job; and a text for people that says where it comes from."""
        if (job := await self._find(tid)) is not None:
            self._budget.note(job)
            return job, (
                f"was started before, as job {shown_id(job.id)}, and is not started again; "
                f"what follows repeats its output from the beginning"
            )
        if (job := self._adopted.get(tid)) is not None:
            return job, f"its output so far, from job {shown_id(job.id)}:"
        creation = self._creations[tid] = asyncio.create_task(self._create(tid))
        # A call that is cut off in the middle may have created the job, whose id nobody would know.
        job = await asyncio.shield(creation)
        del self._creations[tid]
        self._budget.note(job)
        verb = "waits for its turn as" if job.state is JobState.QUEUED else "started as"
        return job, f"{verb} job {shown_id(job.id)}"

    async def unfinished(self) -> dict[int, str]:
        """Ids of the jobs that nobody has followed yet, by command number. Waits for the answers to calls
        that are under way, because only the answers tell the ids."""
        if creations := list(self._creations.values()):
            await asyncio.wait(creations)
        created = {
            tid: creation.result().id
            for tid, creation in self._creations.items()
            if creation.done() and not creation.cancelled() and creation.exception() is None
        }
        return created | {tid: job.id for tid, job in self._adopted.items() if not job.ended}

    def why_none(self) -> str:
        """Why the server has created nothing; empty where it may have created a job."""
        why = "no call came through"
        for creation in self._creations.values():
            error = creation.exception() if creation.done() and not creation.cancelled() else None
            if not isinstance(error, ServerError):
                return ""
            if error.sent and not isinstance(error, ResourceExhaustedError):
                return ""
            why = str(error)
        return why

    async def close(self) -> None:
        """Ask for no more."""
        for creation in self._creations.values():
            creation.cancel()
        await asyncio.gather(*self._creations.values(), return_exceptions=True)
        self._creations.clear()

    async def _find(self, tid: int) -> Job | None:
        """The job that this try has created already: before this trigger was started again, or through the
        same trigger in another triggerer. None where there is none."""
        if tid in self._found:
            return self._found.pop(tid)
        try:
            return await self._get(tid)
        except NotFoundError:
            return None

    async def _get(self, tid: int) -> Job:
        """The job of this try for a command. Raises :class:`NotFoundError` where there is none."""
        request_id = self._origin.command_id(tid)
        return await self._patience.insist(
            lambda client: client.get_job(request_id=request_id, metadata=self._plan.metadata)
        )

    async def _create(self, tid: int) -> Job:
        left = self._budget.left()
        labels = {**self._origin.command_labels(tid), TIME_LIMIT: repr(left)}
        spec = job_spec(self._plan.commands[tid - 1], labels=labels, time_limit=left)
        request_id = self._origin.command_id(tid)
        try:
            return await self._patience.insist(
                lambda client: client.create_job(spec, request_id, repeat=False, metadata=self._plan.metadata)
            )
        except AlreadyExistsError:
            # A twin of this trigger was quicker, and left it another time limit.
            job = await self._get(tid)
            command = self._plan.commands[tid - 1]
            same = await self._patience.insist(
                lambda client: same_job(client, job, command, self._plan.metadata)
            )
            if same is None:
                raise
            return same
