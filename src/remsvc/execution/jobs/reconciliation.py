"""Learns what became of the jobs while no server was there, or when a supervisor was replaced.

The journal says which jobs were claimed. The supervisor says which of them run. The exit record in a job's
folder says how it ended while no server was there. A job of which none of them knows any more is LOST.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import pwd
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from remsvc.execution.jobs.active import ActiveJob, ActiveJobs
from remsvc.execution.jobs.files import JobFiles, JobFilesError
from remsvc.execution.jobs.lifecycle import JobLifecycle
from remsvc.execution.jobs.model import JobRecord
from remsvc.execution.supervisor import process_tree
from remsvc.execution.supervisor.cgroup import GroupParent
from remsvc.execution.supervisor.command_groups import kill_marked_groups, owner_of
from remsvc.execution.supervisor.link import forget_ends, has_ended
from remsvc.execution.supervisor.protocol import KnownJob
from remsvc.execution.tasks import OwnedTasks
from remsvc.job_state import JobState

_logger = logging.getLogger("remsvc.job")

_SETTLE_SECONDS = 10.0


class Reconciliation:
    """Finds the jobs again that a supervisor or a server before this one started.

    Args:
        state_dir: where a supervisor that ends in good order notes that.
        groups: where jobs have control groups; None where the host offers none.
    """

    def __init__(
        self,
        state_dir: Path,
        groups: GroupParent | None,
        active_jobs: ActiveJobs,
        files: JobFiles,
        lifecycle: JobLifecycle,
        tasks: OwnedTasks,
    ) -> None:
        self._state_dir = state_dir
        self._groups = groups
        self._active_jobs = active_jobs
        self._files = files
        self._lifecycle = lifecycle
        self._tasks = tasks

    async def reconcile(self, instance: str, known: Mapping[str, KnownJob]) -> None:
        """Go on with the jobs that ran.

        Args:
            instance: the supervisor that is there now.
            known: the jobs that it runs or whose ends it keeps, by their ids.
        """
        searches = [
            self._tasks.spawn(self._find_again(active, instance, known.get(active.job.id)))
            for active in self._active_jobs
            if active.job.state is JobState.RUNNING and active.told not in ("", instance)
        ]
        for name in known.keys() - self._active_jobs.ids():
            self._lifecycle.tell_forget(name)
        if searches:
            # While the disk is full no end of a job can be written. The server starts all the same.
            await asyncio.wait((self._tasks.spawn(self._settle(searches)),), timeout=_SETTLE_SECONDS)
        forget_ends(self._state_dir, {active.job.supervisor for active in self._active_jobs})

    async def _settle(self, searches: Iterable[asyncio.Task[ActiveJob | None]]) -> None:
        """End the jobs that nobody knows anything of."""
        lost = [active for active in await asyncio.gather(*searches) if active is not None]
        if not lost:
            return
        await asyncio.to_thread(self._kill_leftovers, [active.job for active in lost])
        reason = "the supervisor ended, or the host was restarted: whether it ran is not known"
        for active in lost:
            _logger.error("job %s is lost: %s", active.job.id, reason)
        ends = await asyncio.gather(*(self._lost(active.job, reason) for active in lost))
        await asyncio.gather(*map(self._lifecycle.end, lost, ends))

    async def _lost(self, job: JobRecord, reason: str) -> JobRecord:
        """The job as lost, with what it had written."""
        try:
            stdout, stderr = await self._files.sizes(job.id)
        except JobFilesError as error:
            stdout, stderr = job.stdout, job.stderr
            _logger.error("the output of job %s cannot be read: %s", job.id, error)
            reason = f"{reason}; {error.told}"
        now = time.time()
        return dataclasses.replace(
            job, state=JobState.LOST, reason=reason, ended=now, stdout=stdout, stderr=stderr
        )

    async def _find_again(self, active: ActiveJob, instance: str, entry: KnownJob | None) -> ActiveJob | None:
        """Go on with a job that ran before; return it where nobody knows of it any more."""
        job = active.job
        if entry is not None and entry.record is None:
            active.note_told(instance)
            self._lifecycle.note_start(active, entry)
            if active.cancelled:
                self._lifecycle.tell_end(active)
            if active.watched:
                self._lifecycle.tell_watched(active)
            return None
        record = entry.record if entry is not None else await self._files.exit_record(job.id)
        if record is not None:
            await self._lifecycle.take_record(active, record)
        elif active.told is None and (
            job.supervisor in ("", instance) or has_ended(self._state_dir, job.supervisor)
        ):
            # It was claimed for a supervisor that never heard of it: it has not run.
            await self._lifecycle.start(active)
        elif active.begin_end():
            return active
        return None

    def _kill_leftovers(self, jobs: Collection[JobRecord]) -> None:
        ids = {job.id for job in jobs}
        try:
            if self._groups is not None:
                kill_marked_groups(self._groups.open(), owner_of(self._state_dir), ids)
            process_tree.kill_marked(ids, {_user_of(job) for job in jobs})
        except OSError as error:
            _logger.error("what is left of lost jobs could not be killed: %s", error)


def _user_of(job: JobRecord) -> int:
    """The user whom a job ran as; -1 where that one is gone."""
    if not job.content.user:
        return os.geteuid()
    try:
        return pwd.getpwnam(job.content.user).pw_uid
    except KeyError:
        return -1
