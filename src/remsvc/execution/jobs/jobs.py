"""Durable jobs: claimed on disk, run at most once, found again after a crash.

:class:`Jobs` is what a server has of them. Its parts: taking new ones in
(:mod:`~remsvc.execution.jobs.admission`), the life of one (:mod:`~remsvc.execution.jobs.lifecycle`), what
became of them while nobody looked (:mod:`~remsvc.execution.jobs.reconciliation`), watching
(:mod:`~remsvc.execution.jobs.watches`), :mod:`~remsvc.execution.jobs.upkeep` and
:mod:`~remsvc.execution.jobs.upkeep`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from remsvc.errors import ExecutionError
from remsvc.execution.jobs.active import ActiveJobs
from remsvc.execution.jobs.admission import JobAdmission
from remsvc.execution.jobs.files import JobFiles, Piece
from remsvc.execution.jobs.gate import JobGate, JobPermission, OpenGate
from remsvc.execution.jobs.journal import Journal
from remsvc.execution.jobs.lifecycle import JobLifecycle
from remsvc.execution.jobs.model import JobContent, JobLimits, JobRecord
from remsvc.execution.jobs.observer import GuardedObserver, JobObserver, NobodyObserves
from remsvc.execution.jobs.reconciliation import Reconciliation
from remsvc.execution.jobs.search import Filter, Found
from remsvc.execution.jobs.slots import JobSlots
from remsvc.execution.jobs.transient import PassingJobs
from remsvc.execution.jobs.upkeep import Retention, end_unwatched
from remsvc.execution.jobs.watches import JobWatches, Room, unlimited_room
from remsvc.execution.lookups import Lookups
from remsvc.execution.posix import PosixEngine
from remsvc.execution.supervisor.cgroup import GroupParent
from remsvc.execution.supervisor.protocol import (
    NO_LIMITS,
    OUTPUT_WAIT,
    Ended,
    KnownJob,
    ProcessLimits,
    Started,
    Wrote,
)
from remsvc.execution.tasks import OwnedTasks
from remsvc.job_state import JobState

_logger = logging.getLogger("remsvc.job")


class Jobs:
    """The durable jobs of one server. Coroutines may be called side by side.

    Args:
        state_dir: where journal, output and the supervisor's socket are; exists, and is locked by
            the caller.
        limits: see :class:`JobLimits`.
        groups: where control groups for commands can be had; None for nowhere.
        observer: is told what becomes of them, and of version-1 commands.
        gate: bounds the jobs of single identities.
        process_limits: what each process is held to.
        output_wait: seconds that it is waited for output that others pass on, when its command has ended.
        lookups: those of the whole process, by which users and shells are looked up.

    Attributes:
        engine: runs them, and commands that are none.
        passing: commands that are none.
    """

    def __init__(
        self,
        state_dir: Path,
        limits: JobLimits,
        groups: GroupParent | None = None,
        observer: JobObserver | None = None,
        gate: JobGate | None = None,
        process_limits: ProcessLimits = NO_LIMITS,
        output_wait: float = OUTPUT_WAIT,
        lookups: Lookups | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._groups = groups
        self._lookups = lookups or Lookups()
        self._limits = limits
        self._observer = GuardedObserver(observer or NobodyObserves())
        self._gate = gate or OpenGate()
        self.engine = PosixEngine(
            state_dir, jobs=self, groups=groups, limits=process_limits, output_wait=output_wait
        )
        self.passing = PassingJobs(secrets.token_hex(4), self._observer)
        self._slots = JobSlots(limits, self._gate, on_room=self.start_waiting)
        self._active_jobs = ActiveJobs()
        self._tasks = OwnedTasks(_logger, "a job could not be looked after")

    async def open(self) -> None:
        """Open the journal, find or start the supervisor, and learn what became of the jobs.

        Raises:
            ExecutionError: the journal or the supervisor cannot be used.
        """
        self.engine.launch()  # it gets ready while the journal is opened
        try:
            await self._open()
        except BaseException:
            await self.engine.close()
            raise

    async def _open(self) -> None:
        path = self._state_dir / "jobs"
        try:
            self._files = files = JobFiles(path)
        except OSError as error:
            raise ExecutionError(f"{path}: {error.strerror}") from error
        self._journal = journal = Journal(self._state_dir / "journal.sqlite")
        self._lifecycle = lifecycle = JobLifecycle(
            self._active_jobs,
            journal,
            files,
            self.engine,
            self._slots,
            self._tasks,
            observer=self._observer,
            gate=self._gate,
            lookups=self._lookups,
        )
        self._admission = JobAdmission(
            self._active_jobs,
            journal,
            files,
            lifecycle,
            self._slots,
            self._observer,
            self._limits.max_text_bytes,
        )
        self._watches = JobWatches(self._active_jobs, journal, files, lifecycle, self.passing)
        self._reconciliation = Reconciliation(
            self._state_dir, self._groups, self._active_jobs, files, lifecycle, self._tasks
        )
        lifecycle.remember(await journal.unended())
        # What a server left that was killed between a job's files and its row, or the other way round.
        await files.keep_only(journal.known, self._active_jobs)
        self._reconciled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self.engine.open()
        await self._reconciled
        self._tasks.spawn(end_unwatched(self._active_jobs, lifecycle))
        self._tasks.spawn(Retention(journal, files, self._watches, self._limits).run())

    async def close(self) -> None:
        """Stop looking after the jobs; they go on."""
        jobs_running = self._slots.running > 0
        await self._tasks.close()
        await self.engine.close(jobs_running=jobs_running)
        await self._journal.close()

    # What callers ask for

    async def create(
        self,
        identity: str,
        request_id: str,
        digest: str,
        content: JobContent,
        stdin: bytes = b"",
        permission: JobPermission | None = None,
    ) -> JobRecord:
        """Claim a job on disk and start it, or return the one that this request made before.

        Args:
            digest: tells this content from any other, see
                :func:`~remsvc.execution.jobs.model.content_digest`.
            permission: by which it may start at once; None to ask the gate. One that has to wait is
                asked about when its turn comes.

        Raises:
            RequestReusedError: the request id belongs to a job with other content.
            QueueFullError: nothing was created.
            JournalError: nothing was created, as far as can be known.
        """
        creation = self._admission.create(identity, request_id, digest, content, stdin, permission)
        return await self._tasks.to_the_end(creation)

    async def get(self, job_id: str) -> JobRecord | None:
        """The job as it is now."""
        if active := self._active_jobs.get(job_id):
            return await self._measured(active.job)
        return self.passing.get(job_id) or await self._journal.find(id=job_id)

    async def look_up(self, job_id: str) -> JobRecord | None:
        """The job without the sizes of its output so far, which would have to be measured."""
        active = self._active_jobs.get(job_id)
        return active.job if active is not None else await self.get(job_id)

    async def find(self, identity: str, request_id: str) -> JobRecord | None:
        """The job that a request made."""
        job = await self._journal.find(identity=identity, request_id=request_id)
        return await self.get(job.id) if job else None

    def has_input(self, job_id: str) -> bool:
        """Whether a job that has not ended was given standard input."""
        return self._files.has_stdin(job_id)

    def start_waiting(self) -> None:
        """Look whether jobs that wait may run: what an identity may run has changed, or what else it runs."""
        self._lifecycle.start_queued()

    def running_of(self, identity: str) -> int:
        """How many jobs of an identity run."""
        return self._slots.running_of(identity)

    async def select(self, wanted: Filter, limit: int) -> Found:
        """At most ``limit`` jobs, newest first; version-1 commands before all others.

        Raises:
            TooManySearchesError: too many searches for this identity's jobs are under way.
            JournalError: the journal cannot be read.
        """
        found = Found(self.passing.select(wanted)[:limit])
        if len(found) == limit:
            return found
        jobs = await self._journal.select(wanted, limit - len(found))
        # That one has ended the journal may know a moment before it is known here.
        found += [
            await self._measured(active.job)
            if not job.state.ended and (active := self._active_jobs.get(job.id)) is not None
            else job
            for job in jobs
        ]
        found.stopped_at = jobs.stopped_at
        return found

    async def cancel(self, job: JobRecord, reason: str, *, kill: bool) -> JobRecord:
        """End a job that has not ended; watch it to see its end."""
        active = self._active_jobs.get(job.id)
        if active is None:
            self.passing.cancel(job.id, reason)
            return job
        return await self._tasks.to_the_end(self._lifecycle.cancel(active, reason, kill))

    def watch(
        self,
        job: JobRecord,
        stdout_offset: int | None,
        stderr_offset: int | None,
        room: Room = unlimited_room,
    ) -> AsyncGenerator[JobRecord | Piece, None]:
        """The job now, its output from the offsets on (None: none of that stream), and its end.

        Closing the iterator early is all it takes to stop.

        Args:
            room: entered before output is read, left when that was handed over.

        Raises:
            JobForgottenError: at the first step.
            WatchStoppedError: after :meth:`stop_watches`.
        """
        return self._watches.watch(job.id, stdout_offset, stderr_offset, room)

    def stop_watches(self) -> None:
        """End all watches, those included that are still to begin."""
        self._watches.stop()

    async def _measured(self, job: JobRecord) -> JobRecord:
        """A job that runs, with the sizes of its output so far."""
        if job.state is not JobState.RUNNING or job.started is None:
            return job  # what it has written is told after its start, never before
        stdout, stderr = await self._files.sizes(job.id)
        return dataclasses.replace(job, stdout=stdout, stderr=stderr)

    # The supervisor's events

    def on_supervisor(self, instance: str, known: Sequence[KnownJob]) -> None:
        self._lifecycle.on_supervisor(instance)
        self._tasks.spawn(self._reconcile(instance, {job.id: job for job in known}))

    def on_supervisor_lost(self) -> None:
        self._lifecycle.on_supervisor_lost()

    def on_event(self, event: Started | Wrote | Ended) -> None:
        self._lifecycle.on_event(event)

    async def _reconcile(self, instance: str, known: dict[str, KnownJob]) -> None:
        try:
            await self._reconciliation.reconcile(instance, known)
        except Exception as error:
            if self._reconciled.done():
                raise
            self._reconciled.set_exception(error)
            return
        if not self._reconciled.done():
            self._reconciled.set_result(None)
        self._lifecycle.start_queued()
