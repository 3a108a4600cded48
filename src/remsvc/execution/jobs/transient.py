"""Commands of version 1 as jobs that can be listed and cancelled.

They are listed while they run and a little longer, and are never on disk.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from remsvc.execution.engine import Process
from remsvc.execution.jobs.model import JobContent, JobRecord
from remsvc.execution.jobs.observer import JobObserver, NobodyObserves
from remsvc.execution.jobs.search import Filter
from remsvc.job_state import JobState, OutputSize

_KEPT = 200
_FIRST_SEQ = 2**53  # above that of any durable job: they come first in the list


class PassingJob:
    """A version-1 command that runs.

    Args:
        job: it as a job that runs.

    Attributes:
        job: it as a job, as it is now.
        gone: set when it has ended and is listed no longer as running.
    """

    def __init__(self, job: JobRecord) -> None:
        self.job = job
        self.gone = asyncio.Event()
        self._process: Process | None = None
        self._cancel_reason = ""

    def note_process(self, process: Process) -> None:
        """This is what to end when the command is cancelled, or now where it was cancelled already."""
        self._process = process
        if self._cancel_reason:
            process.end()

    def cancel(self, reason: str) -> None:
        """End it. Of several reasons the first one counts."""
        self._cancel_reason = self._cancel_reason or reason
        if self._process is not None:
            self._process.end()

    def end(
        self, exit_code: int, timed_out: bool = False, stdout: int = 0, stderr: int = 0, reason: str = ""
    ) -> None:
        """Note how it ended. The sizes are in bytes, and none of them are kept."""
        state = JobState.SUCCEEDED if exit_code == 0 else JobState.FAILED
        if timed_out:
            state = JobState.TIMED_OUT
        elif self._cancel_reason:
            state = JobState.CANCELLED
        self.job = dataclasses.replace(
            self.job,
            state=state,
            exit_code=exit_code,
            reason=self._cancel_reason or reason,
            ended=time.time(),
            stdout=OutputSize(stdout, dropped=stdout),
            stderr=OutputSize(stderr, dropped=stderr),
        )

    def lose(self, error: Exception) -> None:
        """Note that what became of it is not known, because of a defect."""
        self._end_as(JobState.LOST, str(error))

    def abandon(self) -> None:
        """Note that nobody waits for it any more, unless it has ended."""
        if not self.job.state.ended:
            self._end_as(JobState.CANCELLED, "its caller went away")

    def _end_as(self, state: JobState, reason: str) -> None:
        self.job = dataclasses.replace(self.job, state=state, reason=reason, ended=time.time())


class PassingJobs:
    """The version-1 commands of a server that run, and the last ones that ran."""

    def __init__(self, prefix: str, observer: JobObserver | None = None) -> None:
        """Ids begin with ``prefix``, which tells this server's from those of the one before."""
        self._prefix = prefix
        self._observer = observer or NobodyObserves()
        self._numbers = itertools.count(1)
        self._running: dict[str, PassingJob] = {}
        self._ended: OrderedDict[str, JobRecord] = OrderedDict()

    def new_id(self) -> str:
        """The id for one more command."""
        return f"v1-{self._prefix}-{next(self._numbers)}"

    @contextmanager
    def running(self, job_id: str, identity: str, content: JobContent) -> Iterator[PassingJob]:
        """A command, listed from now on, as running until the end of the block. Its id is a new one."""
        now = time.time()
        job = JobRecord(
            id=job_id,
            identity=identity,
            request_id="",
            digest="",
            content=content,
            created=now,
            seq=_FIRST_SEQ + int(job_id.rpartition("-")[2]),
            state=JobState.RUNNING,
            started=now,
            durable=False,
        )
        passing = self._running[job_id] = PassingJob(job)
        self._observer.on_state(job)
        try:
            yield passing
        except Exception as error:
            passing.lose(error)
            raise
        finally:
            del self._running[job_id]
            passing.abandon()
            self._ended[job_id] = passing.job
            if len(self._ended) > _KEPT:
                self._ended.popitem(last=False)
            passing.gone.set()
            self._observer.on_state(passing.job)

    def get(self, job_id: str) -> JobRecord | None:
        """The one with this id."""
        passing = self._running.get(job_id)
        return passing.job if passing else self._ended.get(job_id)

    def cancel(self, job_id: str, reason: str) -> None:
        """End it, if it runs."""
        passing = self._running.get(job_id)
        if passing is not None:
            passing.cancel(reason)

    async def ended(self, job: JobRecord) -> JobRecord:
        """The job, once it has ended."""
        passing = self._running.get(job.id)
        if passing is None:
            return self._ended.get(job.id, job)
        await passing.gone.wait()
        return passing.job

    def select(self, wanted: Filter) -> list[JobRecord]:
        """Those that match, newest first."""
        jobs = [*self._ended.values(), *(passing.job for passing in self._running.values())]
        return sorted((job for job in jobs if _matches(job, wanted)), key=lambda job: -job.seq)


def _matches(job: JobRecord, wanted: Filter) -> bool:
    return (
        wanted.identity in (None, job.identity)
        and (not wanted.states or job.state in wanted.states)
        and not wanted.labels
        and (wanted.created_after is None or job.created >= wanted.created_after)
        and (wanted.before_seq is None or job.seq < wanted.before_seq)
    )
