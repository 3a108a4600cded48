"""Taking in new jobs: each request is claimed on disk, once, before anything of it runs."""

from __future__ import annotations

import secrets
import time

from remsvc.execution.active_job import ActiveJob
from remsvc.execution.job import Job, JobSpec
from remsvc.execution.job_errors import QueueFullError, RequestReusedError
from remsvc.execution.job_files import JobFiles
from remsvc.execution.job_observer import JobObserver
from remsvc.execution.job_runner import JobRunner
from remsvc.execution.job_slots import JobSlots
from remsvc.execution.journal import Journal, JournalError
from remsvc.job_state import JobState


class JobAdmission:
    """Makes jobs of requests, and hands them to the runner or to the queue."""

    def __init__(
        self,
        journal: Journal,
        files: JobFiles,
        runner: JobRunner,
        slots: JobSlots,
        observer: JobObserver,
        max_text_bytes: int,
    ) -> None:
        self._max_text_bytes = max_text_bytes
        self._journal = journal
        self._files = files
        self._runner = runner
        self._slots = slots
        self._observer = observer

    async def create(self, identity: str, request_id: str, digest: str, spec: JobSpec, stdin: bytes) -> Job:
        """See :meth:`remsvc.execution.jobs.Jobs.create`; must not be cancelled."""
        starts = bool(self._runner.instance) and self._slots.is_free(identity)
        refusal = "" if starts else self._slots.queue_refusal(identity)
        if refusal := refusal or self._memory_refusal(identity, spec):
            existing = await self._journal.find(identity=identity, request_id=request_id)
            if existing is None:
                raise QueueFullError(refusal)
            return self._same(existing, digest)
        job = Job(
            id=secrets.token_hex(10),
            identity=identity,
            request_id=request_id,
            digest=digest,
            spec=spec,
            created=time.time(),
            state=JobState.RUNNING if starts else JobState.QUEUED,
            supervisor=self._runner.instance if starts else "",
        )
        # Whatever the journal says has not ended is here: it is found by its id from the first moment on.
        active = self._runner.active[job.id] = ActiveJob(job, told="")
        self._slots.prepare(identity, starts)
        try:
            if stdin:
                await self._files.write_stdin(job.id, stdin)
            claimed, is_new = await self._journal.claim(job)
        except (JournalError, OSError) as error:
            await self._abandon(active)
            if isinstance(error, JournalError):
                raise
            raise JournalError(f"standard input cannot be kept: {error.strerror}") from error
        finally:
            self._slots.arrived(identity, starts)
        if not is_new:
            await self._abandon(active)
            return self._same(claimed, digest)
        active.job = claimed
        self._observer.on_state(claimed)
        if starts:
            await self._runner.start(active)
        else:
            self._slots.put(identity, claimed.id)
            self._runner.start_queued()
        return claimed

    def _memory_refusal(self, identity: str, spec: JobSpec) -> str:
        """Why one more job may not be kept in memory; empty where it may."""
        active, size = self._runner.active, spec.text_bytes
        most = self._max_text_bytes
        own = active.text_bytes_of[identity]
        if active.text_bytes + size <= most and own + size <= most - most // 4:
            return ""
        return (
            f"the jobs that have not ended take {active.text_bytes} bytes already, "
            f"{own} of them those of {identity}"
        )

    async def _abandon(self, active: ActiveJob) -> None:
        """Undo the preparations for a job that was not claimed."""
        del self._runner.active[active.job.id]
        if active.job.state is JobState.RUNNING:
            self._slots.vacate(active.job.identity)
            self._runner.start_queued()
        await self._files.remove([active.job.id])

    def _same(self, job: Job, digest: str) -> Job:
        if job.digest != digest:
            raise RequestReusedError(job.id)
        active = self._runner.active.get(job.id)
        return active.job if active else job
