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
from collections.abc import AsyncGenerator, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from remsvc.errors import ExecutionError, RemSvcError, StartError
from remsvc.execution import process_tree
from remsvc.execution.cgroup import group_of, kill_group
from remsvc.execution.engine import MARK, ProcessSpec
from remsvc.execution.fair_queue import FairQueue
from remsvc.execution.frames import Header
from remsvc.execution.job import Job, JobSpec
from remsvc.execution.job_end import ended_job
from remsvc.execution.job_files import STREAMS, JobFiles, Piece
from remsvc.execution.job_limits import JobLimits
from remsvc.execution.journal import Filter, Journal, JournalError
from remsvc.execution.login import login
from remsvc.execution.passing_jobs import PassingJobs
from remsvc.execution.posix import PosixEngine, start_message
from remsvc.execution.shell import shell_argv
from remsvc.execution.supervisor_link import forget_ends, has_ended
from remsvc.job_state import JobState

_logger = logging.getLogger("remsvc.job")

_RETRY_SECONDS = 1.0
_SETTLE_SECONDS = 10.0
_TICK_SECONDS = 1.0
_LOOKUP_SECONDS = 10.0

T = TypeVar("T")


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


class JobForgottenError(RemSvcError):
    """The job ended so long ago that it is not kept any more."""


@dataclass(eq=False)
class _Active:
    """A job that has not ended, and who waits for it.

    ``told``: the supervisor that was told to start it; empty before that, and None where only a
    server before this one knows.
    """

    job: Job
    told: str | None = None
    cancelled: bool = False
    kill: bool = False
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
        self._state_dir = state_dir
        self._groups = groups
        self._files_path = state_dir / "jobs"
        self._journal_path = state_dir / "journal.sqlite"
        self._limits = limits
        self.engine = PosixEngine(state_dir, jobs=self, groups=groups)
        self.passing = PassingJobs(secrets.token_hex(4))
        self._active: dict[str, _Active] = {}
        self._queue: FairQueue[str] = FairQueue()
        self._running = 0
        self._queueing = 0
        self._instance = ""
        self._supervised = asyncio.Event()
        self._watched: dict[str, int] = {}
        self._forgotten: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reconciled: asyncio.Future[None] | None = None
        self._closing = False
        self._own_login = login()

    async def open(self) -> None:
        """Open the journal, find or start the supervisor, and learn what became of the jobs.

        Raises:
            ExecutionError: the journal or the supervisor cannot be used.
        """
        try:
            self._files = JobFiles(self._files_path)
        except OSError as error:
            raise ExecutionError(f"{self._files_path}: {error.strerror}") from error
        self._journal = Journal(self._journal_path)
        for job in await self._journal.unended():
            self._active[job.id] = _Active(job, cancelled=bool(job.reason))
            if job.state is JobState.QUEUED:
                self._queue.put(job.identity, job.id)
            else:
                self._running += 1
        # What a server left that was killed between a job's files and its row, or the other way round.
        await self._files.keep_only(await self._journal.ids(), self._active)
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
        return await self._to_the_end(self._create(identity, request_id, digest, spec, stdin))

    async def _create(self, identity: str, request_id: str, digest: str, spec: JobSpec, stdin: bytes) -> Job:
        starts = bool(self._instance) and self._running < self._limits.max_running and not self._queue
        waiting = len(self._queue) + self._queueing
        if not starts and waiting >= self._limits.max_queued:
            existing = await self._journal.find(identity=identity, request_id=request_id)
            if existing is None:
                raise QueueFullError(f"{waiting} jobs are waiting already")
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
        # Whatever the journal says has not ended is here: it is found by its id from the first moment on.
        active = self._active[job.id] = _Active(job, told="")
        self._running += starts
        self._queueing += not starts
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
            self._queueing -= not starts
        if not is_new:
            await self._abandon(active)
            return self._same(claimed, digest)
        active.job = claimed
        if starts:
            self._spawn(self._start(active))
        else:
            self._queue.put(identity, claimed.id)
            self._start_queued()
        return claimed

    async def _abandon(self, active: _Active) -> None:
        """Undo the preparations for a job that was not claimed."""
        del self._active[active.job.id]
        if active.job.state is JobState.RUNNING:
            self._running -= 1
            self._start_queued()
        await self._files.remove([active.job.id])

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
        """At most ``limit`` jobs, newest first; version-1 commands before all others."""
        passing = self.passing.select(wanted)[:limit]
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
        return await self._to_the_end(self._cancel(active, reason, kill))

    async def _cancel(self, active: _Active, reason: str, kill: bool) -> Job:
        if active.ending:
            return active.job
        first, active.cancelled = not active.cancelled, True
        active.kill = active.kill or kill
        if first:
            active.job = dataclasses.replace(active.job, reason=reason)
        if active.job.state is JobState.QUEUED and self._queue.remove(active.job.id):
            await self._end(active, ended_job(active.job, {"cause": "cancelled"}))
            return active.job
        if first:
            try:
                # A server that is killed now still knows, when it is back.
                await self._journal.note_reason(active.job)
            except JournalError as error:
                _logger.error("that job %s is cancelled cannot be written: %s", active.job.id, error)
        self._tell_end(active)
        return active.job

    def _tell_end(self, active: _Active) -> None:
        self.engine.send({"op": "end", "id": active.job.id, "kill": active.kill})

    async def watch(
        self, job: Job, stdout_offset: int | None, stderr_offset: int | None
    ) -> AsyncGenerator[Job | Piece, None]:
        """The job now, its output from the offsets on (None: none of that stream), and its end.

        Closing the iterator early is all it takes to stop.

        Raises:
            JobForgottenError: at the first step.
        """
        offsets = {"stdout": stdout_offset, "stderr": stderr_offset}
        wake = asyncio.Event()
        self._watched[job.id] = self._watched.get(job.id, 0) + 1
        active = self._active.get(job.id)
        try:
            if active is not None:
                self._add_watcher(active, wake)
            # Asked for again, now that being watched keeps its output where it is.
            current = active.job if active is not None else await self.get(job.id)
            if current is None:
                raise JobForgottenError(f"job {job.id} is not kept any more")
            yield current
            if active is None and not current.state.ended:
                # A version-1 command: its output is its caller's alone.
                yield await self.passing.ended(current)
                return
            while True:
                wake.clear()
                now = active.job if active is not None else current
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
            self._watched[job.id] -= 1
            if not self._watched[job.id]:
                del self._watched[job.id]
            if active is not None:
                self._remove_watcher(active, wake)

    # The supervisor's events

    def on_supervisor(self, instance: str, known: Sequence[Header]) -> None:
        self._instance = instance
        self._supervised.set()
        self._spawn(self._reconcile(instance, {entry["id"]: entry for entry in known}))

    def on_supervisor_lost(self) -> None:
        self._instance = ""
        self._supervised.clear()

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
        try:
            searches = [
                self._spawn(self._find_again(active, instance, known.get(active.job.id)))
                for active in self._active.values()
                if active.job.state is JobState.RUNNING and active.told not in ("", instance)
            ]
            for name in known.keys() - self._active.keys():
                self.engine.send({"op": "forget", "id": name})
            if searches:
                # Where the disk is full, what became of a job cannot be written yet. That must not keep us.
                await asyncio.wait((self._spawn(self._settle(searches)),), timeout=_SETTLE_SECONDS)
            forget_ends(self._state_dir, {active.job.supervisor for active in self._active.values()})
        except Exception as error:
            if self._reconciled is None or self._reconciled.done():
                raise
            self._reconciled.set_exception(error)
            return
        if self._reconciled is not None and not self._reconciled.done():
            self._reconciled.set_result(None)
        self._start_queued()

    async def _settle(self, searches: Iterable[asyncio.Task[_Active | None]]) -> None:
        """End the jobs that nobody knows anything of."""
        lost = [active for active in await asyncio.gather(*searches) if active is not None]
        if not lost:
            return
        await asyncio.to_thread(self._kill_leftovers, [active.job.id for active in lost])
        reason = "the supervisor ended, or the host was restarted: whether it ran is not known"
        for active in lost:
            _logger.error("job %s is lost: %s", active.job.id, reason)
        ends = [
            dataclasses.replace(active.job, state=JobState.LOST, reason=reason, ended=time.time())
            for active in lost
        ]
        await asyncio.gather(*map(self._end, lost, ends))

    async def _find_again(self, active: _Active, instance: str, entry: Header | None) -> _Active | None:
        """Go on with a job that a supervisor or a server before this one started; return it if it is lost."""
        job = active.job
        if entry is not None and "record" not in entry:
            active.told = instance
            self._note_start(active, entry)
            if active.cancelled:
                self._tell_end(active)
            if active.watchers:
                self.engine.send({"op": "watch", "id": job.id, "on": True})
            return None
        record = entry["record"] if entry is not None else await self._files.exit_record(job.id)
        if record is not None:
            await self._take_record(active, record)
        elif active.told is None and (
            job.supervisor in ("", instance) or has_ended(self._state_dir, job.supervisor)
        ):
            # It was claimed for a supervisor that never heard of it: it has not run.
            active.told = ""
            self._spawn(self._start(active))
        elif not active.ending:
            active.ending = True
            return active
        return None

    def _kill_leftovers(self, ids: Collection[str]) -> None:
        if self._groups is not None:
            for job_id in ids:
                kill_group(group_of(self._groups, job_id))
        process_tree.kill_marked(ids)

    def _note_start(self, active: _Active, event: Header) -> None:
        active.job = dataclasses.replace(
            active.job, started=event["started"], pid=event["pid"], pid_started=event["started"]
        )
        active.wake()

    async def _take_record(self, active: _Active, record: dict[str, Any]) -> None:
        if not active.ending:
            active.ending = True
            await self._end(active, ended_job(active.job, record))

    # A job's life

    async def _start(self, active: _Active) -> None:
        job = active.job
        try:
            spec = await self._process_spec(job)
        except (StartError, OSError) as error:
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
        if active.cancelled:
            await self._take_record(active, {"cause": "cancelled"})
            return
        self.engine.send(message)
        active.told = self._instance
        if active.watchers:
            self.engine.send({"op": "watch", "id": job.id, "on": True})

    async def _process_spec(self, job: Job) -> ProcessSpec:
        spec, surroundings = job.spec, self._own_login
        try:
            if spec.user:
                surroundings = await asyncio.wait_for(asyncio.to_thread(login, spec.user), _LOOKUP_SECONDS)
        except asyncio.TimeoutError:
            raise StartError(f"user {spec.user} could not be looked up in time") from None
        env = {**surroundings.env, **spec.env, MARK: job.id}
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
        active.told = ""
        await self._claim_for_supervisor(active)
        active.wake()
        await self._start(active)

    async def _claim_for_supervisor(self, active: _Active) -> Job:
        """Write down that the job runs, and by which supervisor, before that is told."""
        while True:
            await self._supervised.wait()
            instance = self._instance
            claimed = dataclasses.replace(active.job, state=JobState.RUNNING, supervisor=instance)
            try:
                await self._journal.update(claimed)
            except JournalError as error:
                _logger.error("job %s cannot be started yet: %s", claimed.id, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            active.job = dataclasses.replace(active.job, state=JobState.RUNNING, supervisor=instance)
            if self._instance == instance:
                return active.job

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
        await self._files.remove_stdin(job.id)
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
        if len(active.watchers) == 1:
            self.engine.send({"op": "watch", "id": active.job.id, "on": True})

    def _remove_watcher(self, active: _Active, wake: asyncio.Event) -> None:
        active.watchers.discard(wake)
        active.last_watched = time.monotonic()
        if not active.watchers:
            self.engine.send({"op": "watch", "id": active.job.id, "on": False})

    async def _tick(self) -> None:
        collected = time.monotonic()
        while True:
            await asyncio.sleep(min(_TICK_SECONDS, self._limits.collect_seconds))
            now = time.monotonic()
            for active in list(self._active.values()):
                lease = active.job.spec.lease
                if lease is None or active.watchers or active.cancelled or now - active.last_watched < lease:
                    continue
                reason = f"LEASE_EXPIRED: nobody watched it for {lease:g} s"
                self._spawn(self._cancel(active, reason, False))
            if now - collected >= self._limits.collect_seconds:
                collected = now
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
            self._forgotten.update(doomed)
        # A watch that began meanwhile keeps the files until it ends.
        unused = self._forgotten - self._watched.keys()
        self._forgotten -= unused
        await self._files.remove(unused)

    def _same(self, job: Job, digest: str) -> Job:
        if job.digest != digest:
            raise RequestReusedError(job.id)
        active = self._active.get(job.id)
        return active.job if active else job

    async def _to_the_end(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Do what must not be left half done, even if whoever asked for it has gone away."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._answered)
        return await asyncio.shield(task)

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # for the caller, who may not be there any more

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._closing:
            _logger.error("a job could not be looked after", exc_info=error)
