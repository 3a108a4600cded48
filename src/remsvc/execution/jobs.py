"""Durable jobs: claimed on disk, run at most once, found again after a crash.

The journal says what was promised, the supervisor what is running, a job's folder how it ended
while nobody looked. :class:`Jobs` brings the three together, at the start and whenever a supervisor
is replaced, and from then on follows the supervisor's events.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remsvc.errors import ExecutionError, RemSvcError, StartError
from remsvc.execution import process_tree
from remsvc.execution.cgroup import group_of, kill_group
from remsvc.execution.engine import ProcessSpec
from remsvc.execution.fair_queue import FairQueue
from remsvc.execution.frames import Header
from remsvc.execution.job import Job, JobSpec, JobState
from remsvc.execution.job_end import ended_job
from remsvc.execution.job_files import STREAMS, JobFiles, Piece
from remsvc.execution.job_limits import JobLimits
from remsvc.execution.journal import Filter, Journal, JournalError
from remsvc.execution.login import login
from remsvc.execution.passing_jobs import PassingJobs
from remsvc.execution.posix import PosixEngine, start_message
from remsvc.execution.shell import shell_argv

_logger = logging.getLogger("remsvc.job")

_RETRY_SECONDS = 1.0
_TICK_SECONDS = 1.0
_COLLECT_TICKS = 30
_LOOKUP_SECONDS = 10.0


class RequestReusedError(RemSvcError):
    """The request id was used before, with other content.

    Attributes:
        job_id: of the job that it made.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"the request id was used for job {job_id}, with other content")


class QueueFullError(RemSvcError):
    """As many jobs wait as may wait."""


@dataclass(eq=False)
class _Active:
    """A job that has not ended, and who waits for it.

    ``sent``: whether a supervisor was told to start it; None where a server before this one knows.
    """

    job: Job
    sent: bool | None = None
    cancel_reason: str = ""
    watchers: set[asyncio.Event] = field(default_factory=set)
    last_watched: float = field(default_factory=time.monotonic)
    ending: bool = False

    def wake(self) -> None:
        for watcher in self.watchers:
            watcher.set()


class Jobs:
    """The durable jobs of one server. Coroutines may be called side by side.

    Args:
        state_dir: where journal, output and the supervisor's socket are; exists, and is locked by
            the caller.
        limits: see :class:`JobLimits`.
        groups: the control group below which each job gets one; None for none.
    """

    def __init__(self, state_dir: Path, limits: JobLimits, groups: Path | None = None) -> None:
        self._groups = groups
        self._files_path = state_dir / "jobs"
        self._journal_path = state_dir / "journal.sqlite"
        self._limits = limits
        self.engine = PosixEngine(state_dir, jobs=self, groups=groups)
        self.passing = PassingJobs(secrets.token_hex(4))
        self._active: dict[str, _Active] = {}
        self._queue: FairQueue[str] = FairQueue()
        self._running = 0
        self._instance = ""
        self._watched: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reconciled: asyncio.Future[None] | None = None
        self._closing = False
        self._own_login = login()

    async def open(self) -> None:
        """Open the journal, find or start the supervisor, and learn what became of the jobs.

        Raises:
            ExecutionError: the journal or the supervisor cannot be used.
        """
        self._files = JobFiles(self._files_path)
        self._journal = Journal(self._journal_path)
        for job in await self._journal.unended():
            self._active[job.id] = _Active(job)
        self._reconciled = asyncio.get_running_loop().create_future()
        await self.engine.open()
        await self._reconciled
        self._spawn(self._tick())

    async def close(self) -> None:
        """Stop looking after the jobs; they go on."""
        self._closing = True
        self.engine.jobs_running = self._running > 0
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.close()
        await self._journal.close()

    # What callers ask for

    async def create(
        self, identity: str, request_id: str, digest: str, spec: JobSpec, stdin: bytes = b""
    ) -> Job:
        """Claim a job on disk and start it, or return the one that this request made before.

        Args:
            digest: tells this content from any other, see :func:`~remsvc.execution.job.content_digest`.

        Raises:
            RequestReusedError: the request id belongs to a job with other content.
            QueueFullError: nothing was created.
            JournalError: nothing was created, as far as can be known.
        """
        starts = bool(self._instance) and self._running < self._limits.max_running and not self._queue
        if not starts and len(self._queue) >= self._limits.max_queued:
            existing = await self._journal.find(identity=identity, request_id=request_id)
            if existing is None:
                raise QueueFullError(f"{len(self._queue)} jobs are waiting already")
            return self._same(existing, digest)
        job = Job(
            id=secrets.token_hex(10),
            identity=identity,
            request_id=request_id,
            digest=digest,
            spec=spec,
            created=time.time(),
            state=JobState.RUNNING if starts else JobState.QUEUED,
            supervisor=self._instance if starts else "",
        )
        if stdin:
            await self._files.write_stdin(job.id, stdin)
        self._running += starts
        try:
            claimed, is_new = await self._journal.claim(job)
        except JournalError:
            self._running -= starts
            raise
        if not is_new:
            self._running -= starts
            if stdin:
                await self._files.remove([job.id])
            return self._same(claimed, digest)
        active = self._active[claimed.id] = _Active(claimed, sent=False)
        if starts:
            self._spawn(self._start(active))
        else:
            self._queue.put(identity, claimed.id)
            self._start_queued()
        return claimed

    async def get(self, job_id: str) -> Job | None:
        """The job as it is now."""
        if active := self._active.get(job_id):
            return await self._measured(active.job)
        return self.passing.get(job_id) or await self._journal.find(id=job_id)

    async def find(self, identity: str, request_id: str) -> Job | None:
        """The job that a request made."""
        job = await self._journal.find(identity=identity, request_id=request_id)
        return await self.get(job.id) if job else None

    async def select(self, wanted: Filter, limit: int) -> list[Job]:
        """At most ``limit`` jobs, newest first; version-1 commands before all others, on the first page."""
        passing = self.passing.select(wanted)[:limit] if wanted.before_seq is None else []
        jobs = await self._journal.select(wanted, limit - len(passing))
        return passing + [
            await self._measured(self._active[job.id].job) if job.id in self._active else job for job in jobs
        ]

    async def cancel(self, job: Job, reason: str, *, kill: bool) -> Job:
        """End a job that has not ended; watch it to see its end."""
        active = self._active.get(job.id)
        if active is None:
            self.passing.cancel(job.id, reason)
            return job
        active.cancel_reason = active.cancel_reason or reason
        if active.job.state is JobState.QUEUED and self._queue.remove(job.id):
            await self._end(active, ended_job(active.job, {"cause": "cancelled"}, active.cancel_reason))
        else:
            self.engine.send({"op": "end", "id": job.id, "kill": kill})
        return active.job

    async def watch(
        self, job: Job, stdout_offset: int | None, stderr_offset: int | None
    ) -> AsyncGenerator[Job | Piece, None]:
        """The job now, its output from the offsets on (None: none of that stream), and its end.

        Raises nothing of its own; closing the iterator early is all it takes to stop.
        """
        offsets = {"stdout": stdout_offset, "stderr": stderr_offset}
        wake = asyncio.Event()
        active = self._active.get(job.id)
        if active is not None:
            self._add_watcher(active, wake)
        try:
            current = active.job if active else await self.get(job.id) or job
            yield current
            while True:
                wake.clear()
                now = active.job if active else current
                if now.state is not current.state and not now.state.ended:
                    yield now
                current = now
                progress = False
                for stream in STREAMS:
                    if (offset := offsets[stream]) is None:
                        continue
                    piece = await self._files.read(current.id, stream, offset)
                    if piece.data:
                        offsets[stream] = piece.offset + len(piece.data)
                        progress = True
                        yield piece
                if progress:
                    continue
                if current.state.ended:
                    yield current
                    return
                await wake.wait()
        finally:
            if active is not None:
                self._remove_watcher(active, wake)

    # The supervisor's events

    def on_supervisor(self, instance: str, known: Sequence[Header]) -> None:
        self._instance = instance
        self._spawn(self._reconcile(instance, {entry["id"]: entry for entry in known}))

    def on_supervisor_lost(self) -> None:
        self._instance = ""

    def on_event(self, event: Header) -> None:
        active = self._active.get(event["id"])
        if active is None:
            if event["event"] == "ended":  # known to the journal already
                self.engine.send({"op": "forget", "id": event["id"]})
        elif event["event"] == "started":
            self._note_start(active, event)
        elif event["event"] == "output":
            active.wake()
        elif event["event"] == "ended":
            self._spawn(self._take_record(active, event["record"]))

    async def _reconcile(self, instance: str, known: dict[str, Header]) -> None:
        for active in list(self._active.values()):
            job, entry = active.job, known.get(active.job.id)
            if job.state is JobState.QUEUED:
                if job.id not in self._queue:
                    self._queue.put(job.identity, job.id)
                continue
            if self._reconciled is not None and not self._reconciled.done():
                self._running += 1
            if entry is not None and "record" not in entry:
                self._note_start(active, entry)
                if active.cancel_reason:
                    self.engine.send({"op": "end", "id": job.id, "kill": False})
                if active.watchers:
                    self.engine.send({"op": "watch", "id": job.id, "on": True})
                continue
            record = entry["record"] if entry else await self._files.exit_record(job.id)
            if record is not None:
                self._spawn(self._take_record(active, record))
            elif active.sent is False:
                pass  # on its way to the supervisor
            elif active.sent is None and job.supervisor == instance:
                # It was claimed for this very supervisor, which never heard of it: it has not run.
                self._spawn(self._start(active))
            else:
                reason = "the supervisor ended, or the host was restarted: whether it ran is not known"
                _logger.error("job %s is lost: %s", job.id, reason)
                lost = dataclasses.replace(job, state=JobState.LOST, reason=reason, ended=time.time())
                await asyncio.to_thread(self._kill_leftovers, job.id)
                await self._end(active, lost)
        for name in known.keys() - self._active.keys():
            self.engine.send({"op": "forget", "id": name})
        if self._reconciled is not None and not self._reconciled.done():
            self._reconciled.set_result(None)
        self._start_queued()

    def _kill_leftovers(self, job_id: str) -> None:
        if self._groups is not None:
            kill_group(group_of(self._groups, job_id))
        process_tree.kill_marked(job_id)

    def _note_start(self, active: _Active, event: Header) -> None:
        active.job = dataclasses.replace(
            active.job, started=event["started"], pid=event["pid"], pid_started=event["started"]
        )
        active.wake()

    async def _take_record(self, active: _Active, record: dict[str, Any]) -> None:
        if not active.ending:
            active.ending = True
            await self._end(active, ended_job(active.job, record, active.cancel_reason))

    # A job's life

    async def _start(self, active: _Active) -> None:
        job = active.job
        try:
            spec = await self._process_spec(job)
        except StartError as error:
            await self._take_record(active, {"error": str(error), "ended": time.time()})
            return
        if self._instance != job.supervisor:
            # The supervisor that it was claimed for ended before it could be told: claim it for the next.
            job = await self._claim_for_supervisor(active)
        message = start_message(job.id, spec)
        message["cwd_required"] = bool(job.spec.cwd)
        message["job"] = {
            "folder": str(self._files.folder(job.id)),
            "kill_grace": job.spec.kill_grace or 0.0,
            "stdin": self._files.has_stdin(job.id),
        }
        self.engine.send(message)
        active.sent = True
        if active.watchers:
            self.engine.send({"op": "watch", "id": job.id, "on": True})
        if active.cancel_reason:
            self.engine.send({"op": "end", "id": job.id, "kill": False})

    async def _process_spec(self, job: Job) -> ProcessSpec:
        spec, surroundings = job.spec, self._own_login
        try:
            if spec.user:
                surroundings = await asyncio.wait_for(asyncio.to_thread(login, spec.user), _LOOKUP_SECONDS)
        except asyncio.TimeoutError:
            raise StartError(f"user {spec.user} could not be looked up in time") from None
        env = {**surroundings.env, **spec.env, process_tree.MARK: job.id}
        argv = spec.argv
        if spec.shell_command is not None:
            argv = shell_argv(spec.shell_command, int(spec.powershell), env.get("PATH", ""))
        return ProcessSpec(
            argv=argv,
            env=env,
            cwd=spec.cwd or surroundings.cwd,
            credentials=surroundings.credentials,
            time_limit=spec.time_limit,
            output_limit=spec.output_limit,
        )

    def _start_queued(self) -> None:
        while self._queue and self._running < self._limits.max_running and self._instance:
            self._running += 1
            self._spawn(self._start_from_queue(self._queue.get()))

    async def _start_from_queue(self, job_id: str) -> None:
        active = self._active[job_id]
        active.sent = False
        await self._claim_for_supervisor(active)
        active.wake()
        await self._start(active)

    async def _claim_for_supervisor(self, active: _Active) -> Job:
        """Write down that the job runs, and by which supervisor, before that is told."""
        while True:
            job = dataclasses.replace(active.job, state=JobState.RUNNING, supervisor=self._instance)
            try:
                await self._journal.update(job)
            except JournalError as error:
                _logger.error("job %s cannot be started yet: %s", job.id, error)
            else:
                if self._instance == job.supervisor != "":
                    active.job = job
                    return job
            await asyncio.sleep(_RETRY_SECONDS)

    async def _end(self, active: _Active, job: Job) -> None:
        """Write the end down before anybody hears of it."""
        active.ending = True
        held_slot = active.job.state is JobState.RUNNING
        while True:
            try:
                await self._journal.update(job)
                break
            except JournalError as error:
                _logger.error("the end of job %s cannot be written yet: %s", job.id, error)
                await asyncio.sleep(_RETRY_SECONDS)
        active.job = job
        del self._active[job.id]
        self.engine.send({"op": "forget", "id": job.id})
        self._running -= held_slot
        active.wake()
        self._start_queued()

    async def _measured(self, job: Job) -> Job:
        """A job that runs, with the sizes of its output so far."""
        if job.state is not JobState.RUNNING:
            return job
        stdout, stderr = await self._files.sizes(job.id)
        return dataclasses.replace(job, stdout=stdout, stderr=stderr)

    # Watchers, leases, retention

    def _add_watcher(self, active: _Active, wake: asyncio.Event) -> None:
        active.watchers.add(wake)
        self._watched[active.job.id] = self._watched.get(active.job.id, 0) + 1
        if len(active.watchers) == 1:
            self.engine.send({"op": "watch", "id": active.job.id, "on": True})

    def _remove_watcher(self, active: _Active, wake: asyncio.Event) -> None:
        active.watchers.discard(wake)
        active.last_watched = time.monotonic()
        self._watched[active.job.id] -= 1
        if not self._watched[active.job.id]:
            del self._watched[active.job.id]
        if not active.watchers:
            self.engine.send({"op": "watch", "id": active.job.id, "on": False})

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            ticks += 1
            now = time.monotonic()
            for active in list(self._active.values()):
                lease = active.job.spec.lease
                if lease is not None and not active.watchers and now - active.last_watched > lease:
                    await self.cancel(active.job, "lease expired: nobody watched it", kill=False)
            if ticks % _COLLECT_TICKS == 0:
                try:
                    await self._collect()
                except ExecutionError as error:
                    _logger.error("old jobs cannot be removed: %s", error)

    async def _collect(self) -> None:
        """Forget ended jobs that are too old or too many, oldest first, none that is being watched."""
        ended = await self._journal.ended()
        count, size = len(ended), sum(kept for _, _, kept in ended)
        doomed = []
        for job_id, end, kept in ended:
            too_old = time.time() - end > self._limits.retention_seconds
            too_many = count > self._limits.retention_count or size > self._limits.retention_bytes
            if not (too_old or too_many):
                break
            if job_id not in self._watched:
                doomed.append(job_id)
                count, size = count - 1, size - kept
        if doomed:
            await self._journal.forget(doomed)
            await self._files.remove(doomed)

    def _same(self, job: Job, digest: str) -> Job:
        if job.digest != digest:
            raise RequestReusedError(job.id)
        active = self._active.get(job.id)
        return active.job if active else job

    def _spawn(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._closing:
            _logger.error("a job could not be looked after", exc_info=error)
