"""Room for a number of running jobs, and those that wait for it."""

from __future__ import annotations

from remsvc.execution.fair_queue import FairQueue
from remsvc.execution.job_limits import JobLimits


class JobSlots:
    """How many jobs run, and which are next.

    Attributes:
        running: jobs that run, or are about to.
    """

    def __init__(self, limits: JobLimits) -> None:
        self._limits = limits
        self._queue: FairQueue[str] = FairQueue()
        self._arriving = 0
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait, those included that are about to."""
        return len(self._queue) + self._arriving

    @property
    def full(self) -> bool:
        """Whether no more jobs may wait."""
        return self.waiting >= self._limits.max_queued

    @property
    def free(self) -> bool:
        """Whether a new job may run at once, before nobody who waits."""
        return self.running < self._limits.max_running and not self._queue

    def prepare(self, starts: bool) -> None:
        """Count a job that is about to run (``starts``) or to wait."""
        self.running += starts
        self._arriving += not starts

    def arrived(self, starts: bool) -> None:
        """A job that was prepared has been claimed, or has not."""
        self._arriving -= not starts

    def put(self, identity: str, job_id: str) -> None:
        """Let a job wait."""
        self._queue.put(identity, job_id)

    def remove(self, job_id: str) -> bool:
        """Let a job wait no longer; False where it did not."""
        return self._queue.remove(job_id)

    def next(self) -> str | None:
        """Take the next job that waits, which then runs; None where there is none, or no room for it."""
        if not self._queue or self.running >= self._limits.max_running:
            return None
        self.running += 1
        return self._queue.get()
