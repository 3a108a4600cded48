"""Makes a job of a request: the claim is on disk, once, before anything of the job runs."""

from __future__ import annotations

import secrets
import time

from remsvc.execution.jobs.active import ActiveJob, ActiveJobs
from remsvc.execution.jobs.files import JobFiles
from remsvc.execution.jobs.gate import JobPermission
from remsvc.execution.jobs.journal import Journal, JournalError
from remsvc.execution.jobs.lifecycle import JobLifecycle
from remsvc.execution.jobs.model import JobContent, JobRecord, QueueFullError, RequestReusedError
from remsvc.execution.jobs.observer import JobObserver
from remsvc.execution.jobs.slots import JobPlace, JobSlots
from remsvc.job_state import JobState


class JobAdmission:
    """Makes jobs of requests, and starts them or has them wait."""

    def __init__(
        self,
        active_jobs: ActiveJobs,
        journal: Journal,
        files: JobFiles,
        lifecycle: JobLifecycle,
        slots: JobSlots,
        observer: JobObserver,
        max_text_bytes: int,
    ) -> None:
        self._active_jobs = active_jobs
        self._max_text_bytes = max_text_bytes
        self._journal = journal
        self._files = files
        self._lifecycle = lifecycle
        self._slots = slots
        self._observer = observer

    async def create(
        self,
        identity: str,
        request_id: str,
        digest: str,
        content: JobContent,
        stdin: bytes,
        permission: JobPermission | None,
    ) -> JobRecord:
        """See :meth:`remsvc.execution.jobs.jobs.Jobs.create`. It must not be cancelled on its way."""
        job_id, instance = secrets.token_hex(10), self._lifecycle.instance
        try:
            place = self._reserve(identity, job_id, content)
        except QueueFullError:
            existing = await self._journal.find(identity=identity, request_id=request_id)
            if existing is None:
                raise
            return self._same(existing, digest)
        job = JobRecord(
            id=job_id,
            identity=identity,
            request_id=request_id,
            digest=digest,
            content=content,
            created=time.time(),
            state=JobState.RUNNING if place.runs else JobState.QUEUED,
            supervisor=instance if place.runs else "",
        )
        # Before it is in the journal: an unended job that is found there must be in this table, too.
        active = ActiveJob(job, place)
        self._active_jobs.add(active)
        is_new = False
        try:
            claimed, is_new = await self._claim(active, stdin)
        finally:
            if not is_new:
                self._lifecycle.let_go(active)
        if not is_new:
            await self._files.remove([job.id])
            return self._same(claimed, digest)
        active.update(claimed)
        self._observer.on_state(claimed)
        if place.runs:
            await self._lifecycle.start(active, permission)
        else:
            place.wait()
            self._lifecycle.start_queued()
        return claimed

    def _reserve(self, identity: str, job_id: str, content: JobContent) -> JobPlace:
        """Room for one more job. Raises :class:`QueueFullError`: there is none."""
        place = self._slots.reserve(identity, job_id, can_start=bool(self._lifecycle.instance))
        size, most = content.text_bytes, self._max_text_bytes
        all_bytes, own_bytes = self._active_jobs.text_bytes, self._active_jobs.text_bytes_of(identity)
        if all_bytes + size <= most and own_bytes + size <= most - most // 4:
            return place
        place.release()
        raise QueueFullError(
            f"the jobs that have not ended take {all_bytes} bytes already, "
            f"{own_bytes} of them those of {identity}"
        )

    async def _claim(self, active: ActiveJob, stdin: bytes) -> tuple[JobRecord, bool]:
        """Write a job down, after its standard input; the job in the journal, and whether it is new.

        Raises:
            JournalError: it could not be written, and nothing is left of it.
            JobFilesError: nor is it known whether anything is left of it.
        """
        job = active.job
        try:
            if stdin:
                await self._files.write_stdin(job.id, stdin)
            return await self._journal.claim(job)
        except OSError as error:
            await self._files.remove([job.id])
            told = f"standard input cannot be kept: {error.strerror}"
            raise JournalError(str(error), told) from error
        except JournalError:
            await self._files.remove([job.id])
            raise

    def _same(self, job: JobRecord, digest: str) -> JobRecord:
        if job.digest != digest:
            raise RequestReusedError(job.id)
        active = self._active_jobs.get(job.id)
        return active.job if active else job
