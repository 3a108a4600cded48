"""Watch one job to its end, through lost connections and floods of output."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from remsvc.client.jobs import Job, JobState, StateChange
from remsvc.errors import NotFoundError, ServerError
from remsvc_provider.command_output import CommandOutput
from remsvc_provider.live_log import LiveLog
from remsvc_provider.patience import Patience
from remsvc_provider.plan import Plan
from remsvc_provider.server_access import ServerAccess
from remsvc_provider.task_log import shown_id

if TYPE_CHECKING:
    from remsvc.client import AsyncClient

GRACE = 2.0
"""Seconds beyond stream_timeout, in which the server itself ends the command and says so."""
SKIP_PAUSE = 0.25
SKIP_PAUSES = 4
"""How often to ask whether a job has ended, before more of its flood of output is looked at."""


class JobWatch:
    """Watches one job.

    Args:
        access: to the job's server.
        plan: which the job belongs to.
        patience: for calls beside the watch.
        live: the task's log.
    """

    def __init__(self, access: ServerAccess, plan: Plan, patience: Patience, live: LiveLog) -> None:
        self._access = access
        self._plan = plan
        self._patience = patience
        self._live = live
        self._lost = False

    async def to_its_end(self, job: Job, output: CommandOutput) -> Job:
        """The job as it ended. Its output has been passed on, except for what was too much.

        Raises:
            ServerError: it cannot be watched any more.
        """
        while not (followed := await self._access.call(partial(self._watch, job, output))).ended:
            # A flood. The log catches up meanwhile.
            for _ in range(SKIP_PAUSES):
                followed = await self._patience.insist(
                    lambda client: client.get_job(job.id, metadata=self._plan.metadata)
                )
                if followed.ended:
                    break
                await asyncio.sleep(SKIP_PAUSE)
            output.skip_to_end(followed)
        return followed

    async def _watch(self, job: Job, output: CommandOutput, client: AsyncClient) -> Job:
        """Watch to the end, or until more comes than can be passed on; the job as it is then."""
        events = client.watch_job(
            job.id,
            stdout_offset=output.offset("stdout"),
            stderr_offset=output.offset("stderr"),
            reconnect_timeout=self._plan.stream_timeout + GRACE,
            on_disconnect=self._note_lost,
            metadata=self._plan.metadata,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    self._note_back()
                    if isinstance(event, StateChange):
                        if job.state is JobState.QUEUED and event.job.state is JobState.RUNNING:
                            self._live.add(f"Job {shown_id(job.id)} has started")
                        job = event.job
                    else:
                        output.feed(event)
                        if output.overrun:
                            break
        except NotFoundError as error:
            raise ServerError(
                error.code,
                f"the server does not know job {shown_id(job.id)} any more (has it lost its state?); "
                "not retried to prevent duplicate execution",
                error.target,
            ) from error
        return job

    def _note_lost(self, error: ServerError) -> None:
        if not self._lost:  # once for each time, however many attempts it takes
            self._live.add(f"Connection lost, the command goes on: {error}", "warning")
        self._lost = True

    def _note_back(self) -> None:
        if self._lost:
            self._live.add("Connected again; the log goes on where it stopped")
        self._lost = False
