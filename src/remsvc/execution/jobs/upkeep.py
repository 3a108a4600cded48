"""Ends the jobs that nobody watches any more, and forgets those that ended long ago."""

from __future__ import annotations

import asyncio
import logging
import time

from remsvc.errors import ExecutionError
from remsvc.execution.jobs.active import ActiveJobs
from remsvc.execution.jobs.files import JobFiles
from remsvc.execution.jobs.journal import Journal
from remsvc.execution.jobs.lifecycle import JobLifecycle
from remsvc.execution.jobs.model import JobLimits
from remsvc.execution.jobs.watches import JobWatches

_LOOK_SECONDS = 1.0


async def end_unwatched(active_jobs: ActiveJobs, lifecycle: JobLifecycle) -> None:
    """End each job that was not watched for as long as its lease says. Runs until it is cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        for active in active_jobs:
            lease = active.job.content.lease
            if lease is None or active.watched or active.cancelled or now - active.last_watched < lease:
                continue
            lifecycle.cancel_beside(active, f"LEASE_EXPIRED: nobody watched it for {lease:g} s")


_BATCH = 500
_logger = logging.getLogger("remsvc.job")


class Retention:
    """Forgets ended jobs, the oldest first, where they are too old, too many or too large together.

    A job that is being watched is not forgotten. Where a watch begins while its job is being forgotten, the
    job's files stay until the watch has ended.
    """

    def __init__(self, journal: Journal, files: JobFiles, watches: JobWatches, limits: JobLimits) -> None:
        self._journal = journal
        self._files = files
        self._watches = watches
        self._limits = limits
        self._forgotten: set[str] = set()

    async def run(self) -> None:
        """Look for such jobs at regular intervals. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._limits.collect_seconds)
            try:
                await self._collect()
            except ExecutionError as error:
                _logger.error("old jobs cannot be removed: %s", error)

    async def _collect(self) -> None:
        count, size = await self._journal.ended_totals()
        watched, more = 0, True
        while more:
            oldest, doomed = await self._journal.ended(_BATCH, watched), list[str]()
            more = len(oldest) == _BATCH
            for job_id, end, kept in oldest:
                too_old = time.time() - end > self._limits.retention_seconds
                too_many = count > self._limits.retention_count or size > self._limits.retention_bytes
                if not (too_old or too_many):
                    more = False
                    break
                if self._watches.any_of(job_id):
                    watched += 1
                else:
                    doomed.append(job_id)
                    count, size = count - 1, size - kept
            if doomed:
                await self._journal.forget(doomed)
                self._forgotten.update(doomed)
        unused = {job_id for job_id in self._forgotten if not self._watches.any_of(job_id)}
        await self._files.remove(unused)
        self._forgotten -= unused
