"""Version-1 commands as jobs: listed while they run and a little longer, never on disk."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from remsvc.execution.engine import Process
from remsvc.execution.jobs.model import JobContent, JobRecord
from remsvc.execution.jobs.observer import JobObserver, NobodyObserves
from remsvc.execution.jobs.search import Filter
from remsvc.job_state import JobState, OutputSize

_KEPT = 200
_FIRST_SEQ = 2**53  # above that of any durable job: they come first in the list


@dataclass(eq=False)
class PassingJob:
    """A version-1 command that runs.

    Attributes:
        job: it as a job; whoever runs it replaces this when it has ended.
        process: what to end when the job is cancelled, once it is started.
        cancel_reason: why somebody cancelled it.
    """

    job: JobRecord
    process: Process | None = None
    cancel_reason: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def end(
        self, exit_code: int, timed_out: bool = False, stdout: int = 0, stderr: int = 0, reason: str = ""
    ) -> None:
        """Note how it ended. The sizes are in bytes, and none of them are kept."""
        state = JobState.SUCCEEDED if exit_code == 0 else JobState.FAILED
        if timed_out:
            state = JobState.TIMED_OUT
        elif self.cancel_reason:
            state = JobState.CANCELLED
        self.job = dataclasses.replace(
            self.job,
            state=state,
            exit_code=exit_code,
            reason=self.cancel_reason or reason,
            ended=time.time(),
            stdout=OutputSize(stdout, dropped=stdout),
            stderr=OutputSize(stderr, dropped=stderr),
        )


class PassingJobs:
    """All of a server's."""

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
            *(job_id, identity, "", "", content),
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
            passing.job = dataclasses.replace(
                passing.job, state=JobState.LOST, reason=str(error), ended=time.time()
            )
            raise
        finally:
            del self._running[job_id]
            if not passing.job.state.ended:
                reason = "its caller went away"
                passing.job = dataclasses.replace(
                    passing.job, state=JobState.CANCELLED, reason=reason, ended=time.time()
                )
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
            passing.cancel_reason = passing.cancel_reason or reason
            if passing.process is not None:
                passing.process.end()

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
