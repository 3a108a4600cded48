"""Tells the watchers of a job its states, its output as it appears, and its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext

from remsvc.execution.jobs.active import ActiveJob, ActiveJobs
from remsvc.execution.jobs.files import STREAMS, JobFiles, Piece
from remsvc.execution.jobs.journal import Journal
from remsvc.execution.jobs.lifecycle import JobLifecycle
from remsvc.execution.jobs.model import JobForgottenError, JobRecord, WatchStoppedError
from remsvc.execution.jobs.transient import PassingJobs
from remsvc.tally import Tally

WriteRoom = Callable[[], AbstractAsyncContextManager[int]]
"""Makes a context for a piece of output. Entering it waits until the watcher can take more, and gives how
many bytes, at least 1: they are reserved for it until the block ends."""


def unlimited_room() -> AbstractAsyncContextManager[int]:
    """The room of a watcher that takes any amount at once."""
    return nullcontext(sys.maxsize)


class JobWatches:
    """All watches of a server, and which jobs they keep from being forgotten."""

    def __init__(
        self,
        active_jobs: ActiveJobs,
        journal: Journal,
        files: JobFiles,
        lifecycle: JobLifecycle,
        passing: PassingJobs,
    ) -> None:
        self._active_jobs = active_jobs
        self._journal = journal
        self._files = files
        self._lifecycle = lifecycle
        self._passing = passing
        self._watched: Tally[str] = Tally()
        self._wakes: set[asyncio.Event] = set()
        self._stopped = False

    def any_of(self, job_id: str) -> bool:
        """Whether a job, which may have ended, is being watched."""
        return self._watched.of(job_id) > 0

    def stop(self) -> None:
        """End all watches, those included that are still to begin."""
        self._stopped = True
        for wake in self._wakes:
            wake.set()

    async def watch(
        self,
        job_id: str,
        stdout_offset: int | None,
        stderr_offset: int | None,
        room: WriteRoom,
    ) -> AsyncGenerator[JobRecord | Piece, None]:
        """See :meth:`remsvc.execution.jobs.jobs.Jobs.watch`."""
        wake = asyncio.Event()
        active = self._active_jobs.get(job_id)
        with self._watching(job_id, active, wake):
            # Asked for only now, because a job that is watched keeps its output.
            current = active.job if active is not None else await self._now(job_id)
            if current is None:
                raise JobForgottenError(f"job {job_id} is not kept any more")
            self._check_not_stopped()
            yield current
            if active is None and not current.state.ended:
                # A version-1 command: only the caller who runs it gets its output.
                yield await self._passing_end(current, wake)
                return
            offsets = dict(zip(STREAMS, (stdout_offset, stderr_offset), strict=True))
            while True:
                wake.clear()
                self._check_not_stopped()
                now = active.job if active is not None else current
                if now.state is not current.state and not now.state.ended:
                    yield now
                current = now
                progress = False
                for stream, offset in offsets.items():
                    if offset is None or not self._files.reaches_beyond(job_id, stream, offset):
                        continue
                    async with room() as most:
                        piece = await self._files.read(job_id, stream, offset, most)
                        # An empty piece counts, too: it stands behind a part that was dropped.
                        offsets[stream] = piece.offset + len(piece.data)
                        if piece.data:
                            progress = True
                            yield piece
                if progress:
                    continue
                if current.state.ended:
                    yield current
                    return
                await wake.wait()

    @contextmanager
    def _watching(self, job_id: str, active: ActiveJob | None, wake: asyncio.Event) -> Iterator[None]:
        self._watched.add(job_id)
        self._wakes.add(wake)
        if active is not None and active.add_watcher(wake):
            self._lifecycle.tell_watched(active)
        try:
            yield
        finally:
            self._wakes.discard(wake)
            self._watched.remove(job_id)
            if active is not None and active.remove_watcher(wake) and not active.job.state.ended:
                self._lifecycle.tell_watched(active)

    async def _passing_end(self, job: JobRecord, wake: asyncio.Event) -> JobRecord:
        ended = asyncio.ensure_future(self._passing.ended(job))
        stopped = asyncio.ensure_future(wake.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            self._check_not_stopped()
            return ended.result()
        finally:
            ended.cancel()
            stopped.cancel()

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise WatchStoppedError("the server is shutting down")

    async def _now(self, job_id: str) -> JobRecord | None:
        return self._passing.get(job_id) or await self._journal.find(id=job_id)
