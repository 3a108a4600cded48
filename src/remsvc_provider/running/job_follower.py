"""Follows one job to its end, through lost connections, no faster than the task's log takes its output."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from remsvc.client.jobs import Job, JobState, StateChange, WatchEvent
from remsvc.errors import NotFoundError, RemSvcError, ServerError
from remsvc.time_limit import TimeLimit
from remsvc_provider.log.job_output import JobOutput, pieces
from remsvc_provider.log.task_log import TaskLog
from remsvc_provider.log.texts import shown_id
from remsvc_provider.plan import Plan, RunTimes
from remsvc_provider.running.access import ServerAccess

if TYPE_CHECKING:
    from remsvc.client import AsyncClient

GRACE = 2.0
"""Seconds beyond stream_timeout, in which the server itself ends the command and says so."""
END_LOOK_SECONDS = 0.25
"""Seconds between two questions whether a job has ended, while its output takes long to be logged."""
LOOK_TIMEOUT = 10.0
END_SECONDS = 10.0
"""Seconds for reading the end of an output for the log alone, after the log has left out a part of it."""


class JobFollower:
    """Follows one job.

    Its output is read only as fast as the log takes it: the server keeps all of it. A watch tells a job's
    end after all its output, which may be long after the command has ended. So while the log is behind, the
    server is also asked whether the job has ended. From then on the log has ``log_drain`` seconds to catch
    up.

    Args:
        access: to the job's server.
        plan: which the job belongs to.
        times: until when it has time.
        log_drain: seconds for which the log may take longer than the job.
        task_log: the task's log.
        ended: called when the job is known to have ended: only its log, or the end of it, is missing.
    """

    def __init__(
        self,
        access: ServerAccess,
        plan: Plan,
        times: RunTimes,
        log_drain: Callable[[], float],
        task_log: TaskLog,
        ended: Callable[[], None],
    ) -> None:
        self._access = access
        self._plan = plan
        self._times = times
        self._log_drain = log_drain
        self._task_log = task_log
        self._tell_ended = ended
        self._lost = False
        self._ended: Job | None = None
        self._drained_at = float("inf")

    async def to_its_end(self, job: Job, output: JobOutput) -> Job:
        """Follow the job to its end, and return it as it ended. All of its output has been passed on by then,
        except for what neither the log nor the result has room for.

        Raises:
            ServerError: it cannot be watched any more.
            TimeoutError: it has ended, and what the result needs could not be read in ``stream_timeout``.
        """
        job = await self._access.call(partial(self._watch, job, output))
        while not job.ended:  # one of its outputs is not needed any more
            job = await self._access.call(partial(self._watch, job, output))
        missing = True
        while missing and (offsets := output.end_offsets(job)):
            only_for_log = not any(output.needs(stream) for stream, at in offsets.items() if at >= 0)
            limit = (
                self._times.log_seconds(END_SECONDS) if only_for_log else self._plan.stream_timeout + GRACE
            )
            try:
                with TimeLimit(limit):
                    missing = await self._access.call(partial(self._read_end, job, output))
            except TimeoutError:
                if not only_for_log:
                    raise
                output.skip_end(job)
        for _ in output.show_end():
            await asyncio.sleep(0)
        return job

    async def _watch(self, job: Job, output: JobOutput, client: AsyncClient) -> Job:
        """One watch: to the job's end, or until less of it is needed; the job as it is then."""
        drain = TimeLimit(None)
        looking: asyncio.Task[None] | None = None
        offsets = {stream: output.offset(stream) for stream in ("stdout", "stderr")}
        events = self._events(job, offsets, client)
        try:
            with drain:
                if self._ended is not None:
                    drain.restart(self._drained_at - time.monotonic())
                async with aclosing(events):
                    async for event in events:
                        self._note_back()
                        if isinstance(event, StateChange):
                            if job.state is JobState.QUEUED and event.job.state is JobState.RUNNING:
                                self._task_log.add(f"Job {shown_id(job.id)} has started")
                            job = event.job
                            continue
                        for piece in pieces(event):
                            output.feed(piece)
                            await asyncio.sleep(0)
                            if self._task_log.full:
                                looking = looking or asyncio.create_task(self._look_for_end(job, drain))
                                await self._task_log.room()
                        if not output.needs(event.stream):
                            break
        except NotFoundError as error:
            raise self._forgotten(job, error) from error
        except TimeoutError:
            if self._ended is None:
                raise
            self._task_log.add(
                "The command has ended, and its log takes too long: the rest of its output is left out, but "
                "for the end",
                "warning",
            )
            output.close()
            job = self._ended
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.wait([looking])
        if job.ended:
            self._note_ended(job)
        return job

    async def _read_end(self, job: Job, output: JobOutput, client: AsyncClient) -> bool:
        """Pass on what is still needed of a job that has ended; whether to ask again, for less."""
        events = self._events(job, output.end_offsets(job), client)
        try:
            async with aclosing(events):
                async for event in events:
                    self._note_back()
                    if isinstance(event, StateChange):
                        continue
                    needed = output.needs(event.stream)
                    for piece in pieces(event):
                        output.feed(piece)
                        await asyncio.sleep(0)
                    if needed and not output.needs(event.stream):
                        return True
        except NotFoundError as error:
            raise self._forgotten(job, error) from error
        return False

    def _events(
        self, job: Job, offsets: Mapping[str, int], client: AsyncClient
    ) -> AsyncGenerator[WatchEvent]:
        return client.watch_job(
            job.id,
            stdout_offset=offsets.get("stdout", -1),
            stderr_offset=offsets.get("stderr", -1),
            reconnect_timeout=self._plan.stream_timeout + GRACE,
            on_disconnect=self._note_lost,
            metadata=self._plan.metadata,
        )

    async def _look_for_end(self, job: Job, drain: TimeLimit) -> None:
        """Ask until the job has ended: the watch tells it only after all output."""
        told = False
        while self._ended is None:
            await asyncio.sleep(END_LOOK_SECONDS)
            try:
                now = await self._access.call(
                    lambda client: client.get_job(job.id, timeout=LOOK_TIMEOUT, metadata=self._plan.metadata)
                )
            except RemSvcError:
                continue  # the watch meets the same, and tells it
            except Exception as error:  # noqa: BLE001  whatever it is: the log must not be waited for without end
                if not told:
                    problem = f"{type(error).__name__}: {error}"
                    self._task_log.add(f"Whether the command has ended cannot be asked: {problem}", "warning")
                told = True
                continue
            if now.ended:
                self._note_ended(now)
                drain.restart(self._drained_at - time.monotonic())

    def _note_ended(self, job: Job) -> None:
        if self._ended is None:
            self._ended = job
            self._drained_at = time.monotonic() + self._log_drain()
            self._tell_ended()

    def _forgotten(self, job: Job, error: NotFoundError) -> ServerError:
        return ServerError(
            error.code,
            f"the server does not know job {shown_id(job.id)} any more (has it lost its state?); "
            "not retried to prevent duplicate execution",
            error.target,
        )

    def _note_lost(self, error: ServerError) -> None:
        if not self._lost:  # once for each time, however many attempts it takes
            self._task_log.add(f"Connection lost, the command goes on: {error}", "warning")
        self._lost = True

    def _note_back(self) -> None:
        if self._lost:
            self._task_log.add("Connected again; the log goes on where it stopped")
        self._lost = False
