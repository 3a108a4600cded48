"""The durable jobs of a server: claimed on disk, run at most once, found again after a crash.

:class:`Jobs` is all that the services see of them. Each of its parts is a module beside this one:

- ``admission`` makes a job of a request, ``slots`` says whether it may run now or has to wait, and ``gate``
  whether it is permitted;
- ``lifecycle`` starts a job and writes down how it ended; ``active`` holds those that have not ended;
- ``journal`` and ``search`` keep them on disk and find them there, ``files`` keeps their output;
- ``watches`` tells callers what a job writes, as it appears;
- ``reconciliation`` learns what became of jobs while no server was there;
- ``upkeep`` ends jobs that nobody watches any more, and forgets old ones;
- ``transient`` lists version-1 commands beside the durable jobs.
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
from remsvc.execution.jobs.watches import JobWatches, WriteRoom, unlimited_room
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
    """The durable jobs of one server. Its coroutines may be called side by side.

    Args:
        state_dir: the folder of the journal, the output and the supervisor's socket. It exists, and the
            caller holds its lock.
        limits: how many jobs may run, wait and be kept.
        groups: where commands get control groups of their own; None where the host offers none.
        observer: is told of every new state of a job and of a version-1 command.
        gate: permits jobs, and bounds those of each identity.
        process_limits: what the kernel holds each process to.
        output_wait: seconds to wait for output that other processes still pass on when a command has ended.
        lookups: looks users and shells up, for the whole server.

    Attributes:
        engine: runs the processes of jobs and of version-1 commands.
        passing: the version-1 commands, which are listed as jobs and are never on disk.
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
        """Open the journal, find or start the supervisor, and learn what became of the jobs meanwhile.

        Raises:
            ExecutionError: the journal or the supervisor cannot be used.
        """
        self.engine.launch()  # a new supervisor gets ready while the journal is opened
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
        # A server that was killed may have made the files of a job and not its row, or the other way round.
        await files.keep_only(journal.known, self._active_jobs)
        self._reconciled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self.engine.open()
        await self._reconciled
        self._tasks.spawn(end_unwatched(self._active_jobs, lifecycle))
        self._tasks.spawn(Retention(journal, files, self._watches, self._limits).run())

    async def close(self) -> None:
        """Stop looking after the jobs. Those that run go on, and the next server finds them."""
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
        """Claim a job on disk and start it, or return the one that the same request made before.

        Args:
            identity: whose job it is.
            request_id: chosen by the caller; with the identity, it names the request for ever.
            digest: of the content, by :func:`~remsvc.execution.jobs.model.content_digest`; tells whether a
                repeated request asks for the same.
            content: what to run, with the server's defaults filled in.
            stdin: its standard input.
            permission: that it may start at once; None to ask the gate. For a job that has to wait, the
                gate is asked when its turn comes.

        Raises:
            RequestReusedError: the request id belongs to a job with other content.
            QueueFullError: nothing was created.
            JournalError: nothing was created, as far as can be known.
            JobFilesError: the files cannot be used. Whether the request has made a job before is not known.
        """
        creation = self._admission.create(identity, request_id, digest, content, stdin, permission)
        return await self._tasks.to_the_end(creation)

    async def get(self, job_id: str) -> JobRecord | None:
        """The job as it is now."""
        if active := self._active_jobs.get(job_id):
            return await self._measured(active.job)
        return self.passing.get(job_id) or await self._journal.find(id=job_id)

    async def look_up(self, job_id: str) -> JobRecord | None:
        """The job as it is now, but for the sizes of its output, which take a look at its files."""
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
        """Start jobs that wait and may run now: to be called when that may have changed."""
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
        passing = self.passing.select(wanted)[:limit]
        if len(passing) == limit:
            return Found(passing)
        found = await self._journal.select(wanted, limit - len(passing))
        # The journal may know of a job's end a moment before the table of active jobs does.
        jobs = [
            await self._measured(active.job)
            if not job.state.ended and (active := self._active_jobs.get(job.id)) is not None
            else job
            for job in found.jobs
        ]
        return Found(passing + jobs, found.stopped_at)

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
        room: WriteRoom = unlimited_room,
    ) -> AsyncGenerator[JobRecord | Piece, None]:
        """The job now, its output from the offsets on (None: none of that stream), and its end.

        Closing the iterator early is all it takes to stop.

        Args:
            room: entered before a piece of output is read, left when the piece was handed over.

        Raises:
            JobForgottenError: the job is not kept any more; raised at the first step.
            JobFilesError: its output cannot be read.
            WatchStoppedError: after :meth:`stop_watches`.
        """
        return self._watches.watch(job.id, stdout_offset, stderr_offset, room)

    def stop_watches(self) -> None:
        """End all watches, those included that are still to begin."""
        self._watches.stop()

    async def _measured(self, job: JobRecord) -> JobRecord:
        """A job that runs, with the sizes of its output so far."""
        if job.state is not JobState.RUNNING or job.started is None:
            return job  # its output is told from its start on, never before
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
