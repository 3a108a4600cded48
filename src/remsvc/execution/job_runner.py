"""The life of a durable job, from its claim to its end."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterable
from typing import Any

from remsvc.errors import StartError
from remsvc.execution.active_job import ActiveJob, ActiveJobs
from remsvc.execution.frames import Header
from remsvc.execution.job import Job
from remsvc.execution.job_end import ended_job
from remsvc.execution.job_files import JobFiles
from remsvc.execution.job_gate import JobGate
from remsvc.execution.job_observer import JobObserver
from remsvc.execution.job_process import job_process, job_start_message
from remsvc.execution.job_slots import JobSlots
from remsvc.execution.journal import Journal, JournalError
from remsvc.execution.login import login
from remsvc.execution.owned_tasks import OwnedTasks
from remsvc.execution.posix import PosixEngine
from remsvc.job_state import JobState

_logger = logging.getLogger("remsvc.job")

_RETRY_SECONDS = 1.0
# What is told the supervisor in passing goes with what it must know at once.
_FORGET_SECONDS, _WATCH_SECONDS = 0.05, 0.002


class JobRunner:
    """Starts jobs, follows them and writes down how they end.

    Attributes:
        active: the jobs that have not ended, by id.
        instance: the supervisor that starts commands; empty while there is none.
    """

    def __init__(
        self,
        journal: Journal,
        files: JobFiles,
        engine: PosixEngine,
        slots: JobSlots,
        tasks: OwnedTasks,
        *,
        observer: JobObserver,
        gate: JobGate,
    ) -> None:
        self.active = ActiveJobs()
        self.instance = ""
        self._journal = journal
        self._files = files
        self._engine = engine
        self._slots = slots
        self._tasks = tasks
        self._observer = observer
        self._gate = gate
        self._supervised = asyncio.Event()
        self._own_login = login()

    def remember(self, jobs: Iterable[Job]) -> None:
        """Take over the jobs that had not ended when the server before this one did."""
        for job in jobs:
            self.active[job.id] = ActiveJob(job, cancelled=bool(job.reason))
            if job.state is JobState.QUEUED:
                self._slots.put(job.identity, job.id)
            else:
                self._slots.occupy(job.identity)

    # The supervisor

    def on_supervisor(self, instance: str) -> None:
        """A supervisor is there, to start what comes."""
        self.instance = instance
        self._supervised.set()

    def on_supervisor_lost(self) -> None:
        """It is gone: nothing can be started until there is another one."""
        self.instance = ""
        self._supervised.clear()

    def on_event(self, event: Header) -> None:
        """``started``, ``output`` or ``ended`` of a job."""
        active = self.active.get(event["id"])
        if active is None:
            if event["event"] == "ended":  # known to the journal already
                self.tell_forget(event["id"])
        elif event["event"] == "started":
            self.note_start(active, event)
        elif event["event"] == "output":
            active.wake()
        elif event["event"] == "ended":
            self._tasks.spawn(self.take_record(active, event["record"]))

    def tell_end(self, active: ActiveJob) -> None:
        """Tell the supervisor to end a job."""
        self._engine.send({"op": "end", "id": active.job.id, "kill": active.kill})

    def tell_forget(self, job_id: str) -> None:
        """Tell the supervisor that the journal knows how a job ended."""
        self._engine.send({"op": "forget", "id": job_id}, within=_FORGET_SECONDS)

    def tell_watched(self, active: ActiveJob) -> None:
        """Tell the supervisor whether anybody wants to know of a job's output."""
        message = {"op": "watch", "id": active.job.id, "on": bool(active.watchers)}
        self._engine.send(message, within=_WATCH_SECONDS)

    # Start

    async def start(self, active: ActiveJob, *, waited: bool = False) -> None:
        """Start a job that has been claimed for a supervisor; ``waited``: some time ago.

        What may take longer goes on beside the caller.
        """
        active.told = ""
        if waited or active.job.spec.user:
            self._tasks.spawn(self._start(active, waited=waited))
        else:
            await self._start(active, waited=False)

    def start_queued(self) -> None:
        """Start jobs that wait, while there is room."""
        while self.instance and (job_id := self._slots.next()) is not None:
            active = self.active[job_id]
            self._slots.occupy(active.job.identity)
            self._tasks.spawn(self._start_from_queue(active))

    async def _start_from_queue(self, active: ActiveJob) -> None:
        active.told = ""
        self._observer.on_state(await self._claim_for_supervisor(active))
        active.wake()
        await self._start(active, waited=True)

    async def _start(self, active: ActiveJob, *, waited: bool) -> None:
        job = active.job
        try:
            if waited and (refusal := await self._gate.refusal(job)):
                raise StartError(refusal)
            process = await job_process(job, self._own_login)
        except (StartError, OSError) as error:
            await self.take_record(active, {"error": str(error), "ended": time.time()})
            return
        if self.instance != job.supervisor:
            # The supervisor that it was claimed for ended before it could be told: claim it for the next.
            job = await self._claim_for_supervisor(active)
        message = job_start_message(self._engine, job, process, self._files)
        if active.cancelled:
            await self.take_record(active, {"cause": "cancelled"})
            return
        self._engine.send(message)
        active.told = self.instance
        if active.watchers:
            self.tell_watched(active)

    async def _claim_for_supervisor(self, active: ActiveJob) -> Job:
        """Write down that the job runs, and by which supervisor, before that is told."""
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
            active.job = dataclasses.replace(active.job, state=JobState.RUNNING, supervisor=instance)
            if self.instance == instance:
                return active.job

    def note_start(self, active: ActiveJob, event: Header) -> None:
        """Note which process a job is."""
        active.job = dataclasses.replace(
            active.job, started=event["started"], pid=event["pid"], pid_started=event["started"]
        )

    # End

    async def cancel(self, active: ActiveJob, reason: str, kill: bool) -> Job:
        """End a job, with a grace unless ``kill``; the job as it is now."""
        if active.ending:
            return active.job
        first, active.cancelled = not active.cancelled, True
        active.kill = active.kill or kill
        if first:
            active.job = dataclasses.replace(active.job, reason=reason)
        if active.job.state is JobState.QUEUED and self._slots.remove(active.job.id):
            await self.end(active, ended_job(active.job, {"cause": "cancelled"}))
            return active.job
        if first:
            try:
                # A server that is killed now still knows, when it is back.
                await self._journal.note_reason(active.job)
            except JournalError as error:
                _logger.error("that job %s is cancelled cannot be written: %s", active.job.id, error)
        self.tell_end(active)
        return active.job

    def cancel_beside(self, active: ActiveJob, reason: str) -> None:
        """End a job, with a grace, while the caller goes on."""
        self._tasks.spawn(self.cancel(active, reason, False))

    async def take_record(self, active: ActiveJob, record: dict[str, Any]) -> None:
        """End a job as a record says (:mod:`remsvc.execution.exit_record`), once."""
        if not active.ending:
            active.ending = True
            await self.end(active, ended_job(active.job, record))

    async def end(self, active: ActiveJob, job: Job) -> None:
        """Write the end of a job down before anybody hears of it."""
        active.ending = True
        held_slot = active.job.state is JobState.RUNNING
        await self._observer.before_end(job)
        while True:
            try:
                await self._journal.update(job)
                break
            except JournalError as error:
                _logger.error("the end of job %s cannot be written yet: %s", job.id, error)
                await asyncio.sleep(_RETRY_SECONDS)
        active.job = job
        del self.active[job.id]
        await self._files.remove_stdin(job.id)
        self.tell_forget(job.id)
        if held_slot:
            self._slots.vacate(job.identity)
        active.wake()
        self.start_queued()
