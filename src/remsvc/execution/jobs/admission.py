"""Taking in new jobs: each request is claimed on disk, once, before anything of it runs."""

from __future__ import annotations

import contextlib
import secrets
import time

from remsvc.execution.jobs.files import JobFiles
from remsvc.execution.jobs.gate import JobPermission
from remsvc.execution.jobs.journal import Journal, JournalError
from remsvc.execution.jobs.lifecycle import ActiveJob, JobLifecycle
from remsvc.execution.jobs.model import JobContent, JobRecord, QueueFullError, RequestReusedError
from remsvc.execution.jobs.observer import JobObserver
from remsvc.execution.jobs.slots import JobSlots
from remsvc.job_state import JobState


class JobAdmission:
    """Makes jobs of requests, and hands them to the lifecycle or to the queue."""

    def __init__(
        self,
        journal: Journal,
        files: JobFiles,
        lifecycle: JobLifecycle,
        slots: JobSlots,
        observer: JobObserver,
        max_text_bytes: int,
    ) -> None:
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
        """See :meth:`remsvc.execution.jobs.jobs.Jobs.create`; must not be cancelled."""
        starts = bool(self._lifecycle.instance) and self._slots.is_free(identity)
        refusal = "" if starts else self._slots.queue_refusal(identity)
        if refusal := refusal or self._memory_refusal(identity, content):
            existing = await self._journal.find(identity=identity, request_id=request_id)
            if existing is None:
                raise QueueFullError(refusal)
            return self._same(existing, digest)
        job = JobRecord(
            id=secrets.token_hex(10),
            identity=identity,
            request_id=request_id,
            digest=digest,
            content=content,
            created=time.time(),
            state=JobState.RUNNING if starts else JobState.QUEUED,
            supervisor=self._lifecycle.instance if starts else "",
        )
        # Whatever the journal says has not ended is here: it is found by its id from the first moment on.
        active = ActiveJob(job, told="", slot=self._slots.take(identity) if starts else None)
        self._lifecycle.active[job.id] = active
        is_new = False
        try:
            claimed, is_new = await self._claim(active, stdin)
        finally:
            if not is_new:
                self._lifecycle.let_go(active)
        if not is_new:
            await self._files.remove([job.id])
            return self._same(claimed, digest)
        active.job = claimed
        self._observer.on_state(claimed)
        if starts:
            await self._lifecycle.start(active, permission)
        else:
            self._slots.put(identity, claimed.id)
            self._lifecycle.start_queued()
        return claimed

    def _memory_refusal(self, identity: str, content: JobContent) -> str:
        """Why one more job may not be kept in memory; empty where it may."""
        active, size = self._lifecycle.active, content.text_bytes
        most = self._max_text_bytes
        own = active.text_bytes_of[identity]
        if active.text_bytes + size <= most and own + size <= most - most // 4:
            return ""
        return (
            f"the jobs that have not ended take {active.text_bytes} bytes already, "
            f"{own} of them those of {identity}"
        )

    async def _claim(self, active: ActiveJob, stdin: bytes) -> tuple[JobRecord, bool]:
        """Write a job down, after its standard input. Raises :class:`JournalError`: nothing is left of it."""
        job = active.job
        arriving = self._slots.arriving(job.identity) if active.slot is None else contextlib.nullcontext()
        try:
            with arriving:
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
        active = self._lifecycle.active.get(job.id)
        return active.job if active else job
