"""Starts durable jobs, follows them, and writes down how they ended.

Each step is on disk before anybody acts on it or hears of it: that a job runs, before the supervisor is
told to start it; how it ended, before a caller is told.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterable

from remsvc.errors import StartError
from remsvc.execution.engine import ProcessSpec
from remsvc.execution.jobs.active import ActiveJob, ActiveJobs
from remsvc.execution.jobs.files import JobFiles
from remsvc.execution.jobs.gate import JobGate, JobPermission
from remsvc.execution.jobs.journal import Journal, JournalError
from remsvc.execution.jobs.model import JobRecord, ended_job, loss_of_output
from remsvc.execution.jobs.observer import JobObserver
from remsvc.execution.jobs.process import job_process, job_start_order
from remsvc.execution.jobs.slots import JobSlots
from remsvc.execution.login import login
from remsvc.execution.lookups import Lookups
from remsvc.execution.posix import PosixEngine
from remsvc.execution.supervisor.protocol import End, Ended, Forget, KnownJob, Started, WatchOutput, Wrote
from remsvc.execution.supervisor.records import CANCELLED, CommandId, ExitRecord
from remsvc.execution.tasks import OwnedTasks
from remsvc.job_state import JobState

_logger = logging.getLogger("remsvc.job")

_RETRY_SECONDS = 1.0
# Seconds that such a message may wait for others to go out with it: each write costs a system call.
_FORGET_SECONDS, _WATCH_SECONDS = 0.05, 0.002


class JobLifecycle:
    """Takes each job from its claim to its end.

    Attributes:
        instance: tells the supervisor that is there from those before it; empty while there is none.
    """

    def __init__(
        self,
        active_jobs: ActiveJobs,
        journal: Journal,
        files: JobFiles,
        engine: PosixEngine,
        slots: JobSlots,
        tasks: OwnedTasks,
        *,
        observer: JobObserver,
        gate: JobGate,
        lookups: Lookups,
    ) -> None:
        self.instance = ""
        self._active_jobs = active_jobs
        self._journal = journal
        self._files = files
        self._engine = engine
        self._slots = slots
        self._tasks = tasks
        self._observer = observer
        self._gate = gate
        self._supervised = asyncio.Event()
        self._own_login = login()
        self._lookups = lookups

    def remember(self, jobs: Iterable[JobRecord]) -> None:
        """Take over the jobs that had not ended when the server before this one ended."""
        for job in jobs:
            runs = job.state is not JobState.QUEUED
            place = self._slots.restore(job.identity, job.id, runs=runs)
            self._active_jobs.add(ActiveJob(job, place, found=True))

    def let_go(self, active: ActiveJob) -> None:
        """Free what a job took, which has ended or was not claimed, and wake those who watch it."""
        self._active_jobs.remove(active)
        active.place.release()
        active.wake()

    # The supervisor

    def on_supervisor(self, instance: str) -> None:
        """A supervisor is there, to start what comes."""
        self.instance = instance
        self._supervised.set()

    def on_supervisor_lost(self) -> None:
        """The supervisor is gone: nothing can be started until there is another one."""
        self.instance = ""
        self._supervised.clear()

    def on_event(self, event: Started | Wrote | Ended) -> None:
        """A job has started, written something or ended."""
        active = self._active_jobs.get(str(event.id))
        if active is None:
            if isinstance(event, Ended):  # known to the journal already
                self.tell_forget(event.id)
        elif isinstance(event, Started):
            self.note_start(active, event)
        elif isinstance(event, Wrote):
            active.wake()
        else:
            self._tasks.spawn(self.take_record(active, event.record))

    def tell_end(self, active: ActiveJob) -> None:
        """Tell the supervisor to end a job."""
        self._engine.send(End(active.job.id, active.kill))

    def tell_forget(self, job_id: CommandId) -> None:
        """Tell the supervisor that the journal knows how a job ended."""
        self._engine.send(Forget(job_id), within=_FORGET_SECONDS)

    def tell_watched(self, active: ActiveJob) -> None:
        """Tell the supervisor whether anybody wants to know of a job's output."""
        self._engine.send(WatchOutput(active.job.id, active.watched), within=_WATCH_SECONDS)

    # Start

    async def start(self, active: ActiveJob, permission: JobPermission | None = None) -> None:
        """Start a job that has been claimed for a supervisor.

        Asking the gate and looking a user up may take long: they are done beside the caller.

        Args:
            active: the job.
            permission: that it may start; None where the gate has to be asked anew.
        """
        active.note_told("")
        if permission is None or active.job.content.user:
            self._tasks.spawn(self._start(active, permission))
        else:
            await self._start(active, permission)

    def start_queued(self) -> None:
        """Start jobs that wait, while there is room."""
        while self.instance and (job_id := self._slots.start_next()) is not None:
            active = self._active_jobs[job_id]
            active.note_told("")
            self._tasks.spawn(self._start(active, None))

    async def _start(self, active: ActiveJob, permission: JobPermission | None) -> None:
        """Start a job, or end it with the reason why it cannot be started. It never stays in between."""
        try:
            process = await self._ready(active, permission)
            if process is None:
                await self.take_record(active, ExitRecord(cause=CANCELLED))
                return
            # There is no wait between the last look at the permission and this: it still stands.
            self._engine.send(job_start_order(self._engine, active.job, process, self._files))
        except (StartError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            await self.take_record(active, ExitRecord(error=reason, ended=time.time()))
        except Exception:
            _logger.exception("job %s could not be started", active.job.id)
            reason = "it could not be started: the server has failed"
            await self.take_record(active, ExitRecord(error=reason, ended=time.time()))
        else:
            active.note_told(self.instance)
            if active.watched:
                self.tell_watched(active)

    async def _ready(self, active: ActiveJob, permission: JobPermission | None) -> ProcessSpec | None:
        """Wait until a job has a process, a claim for the present supervisor and a permission, all at once.

        Returns:
            The process; None where the job was cancelled meanwhile.

        Raises:
            StartError, OSError: it must not or cannot be started.
        """
        process: ProcessSpec | None = None
        # After each wait all of them are looked at again, since any of them may have changed meanwhile.
        while not active.cancelled:
            if permission is None or not permission.stands():
                permission = await self._gate.permit(active.job)
            elif process is None:
                process = await job_process(active.job, self._own_login, self._lookups)
            elif active.job.supervisor != self.instance or not self.instance:
                # It was in the queue, or the supervisor that it was claimed for ended before it was told.
                await self._claim_for_supervisor(active)
            elif permission.program:
                # The job keeps the program that was asked for, because each decision is about that one.
                return dataclasses.replace(process, argv=(permission.program, *process.argv[1:]))
            else:
                return process
        return None

    async def _claim_for_supervisor(self, active: ActiveJob) -> None:
        """Write down that a job runs, and with which supervisor, before that supervisor is told."""
        while True:
            await self._supervised.wait()
            instance = self.instance
            claimed = dataclasses.replace(active.job, state=JobState.RUNNING, supervisor=instance)
            try:
                await self._journal.update(claimed)
            except JournalError as error:
                _logger.error("job %s cannot be started yet: %s", claimed.id, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            waited = active.job.state is JobState.QUEUED
            active.update(dataclasses.replace(active.job, state=JobState.RUNNING, supervisor=instance))
            if waited:
                self._observer.on_state(active.job)
                active.wake()
            if self.instance == instance:
                return

    def note_start(self, active: ActiveJob, event: Started | KnownJob) -> None:
        """Note which process a job is."""
        started = event.started
        active.update(dataclasses.replace(active.job, started=started, pid=event.pid, pid_started=started))

    # End

    async def cancel(self, active: ActiveJob, reason: str, kill: bool) -> JobRecord:
        """End a job, with a grace unless ``kill``; the job as it is now."""
        if active.ending:
            return active.job
        if first := active.cancel(kill=kill):
            active.update(dataclasses.replace(active.job, reason=reason))
        if active.job.state is JobState.QUEUED and active.place.leave_queue():
            await self.end(active, ended_job(active.job, ExitRecord(cause=CANCELLED)))
            return active.job
        if first:
            try:
                # So that a server which is killed now, and started again, still cancels it.
                await self._journal.note_reason(active.job)
            except JournalError as error:
                _logger.error("that job %s is cancelled cannot be written: %s", active.job.id, error)
        self.tell_end(active)
        return active.job

    def cancel_beside(self, active: ActiveJob, reason: str) -> None:
        """End a job, with a grace, while the caller goes on."""
        self._tasks.spawn(self.cancel(active, reason, False))

    async def take_record(self, active: ActiveJob, record: ExitRecord) -> None:
        """End a job as its supervisor's record says. Only the first record of a job counts."""
        if not active.begin_end():
            return
        if record.garbled:
            _logger.error("the record of job %s is not understood: %s", active.job.id, record.garbled)
        if record.lost is not None:
            _logger.warning("job %s: %s", active.job.id, loss_of_output(record.lost))
        await self.end(active, ended_job(active.job, record))

    async def end(self, active: ActiveJob, job: JobRecord) -> None:
        """Write the end of a job down before anybody hears of it."""
        active.begin_end()
        await self._observer.before_end(job)
        while True:
            try:
                await self._journal.update(job)
                break
            except JournalError as error:
                _logger.error("the end of job %s cannot be written yet: %s", job.id, error)
                await asyncio.sleep(_RETRY_SECONDS)
        active.update(job)
        self._active_jobs.remove(active)  # from now on, the journal knows all of it
        try:
            await self._files.remove_stdin(job.id)
        except OSError as error:
            # It is removed with the job's other files, when the job is forgotten.
            _logger.error("the standard input of job %s cannot be removed yet: %s", job.id, error)
        finally:
            self.tell_forget(job.id)
            self.let_go(active)
