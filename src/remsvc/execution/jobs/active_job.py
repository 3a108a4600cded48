"""A job that has not ended, as the server has it in memory."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from remsvc.execution.jobs.model import Job
from remsvc.execution.jobs.slots import JobSlot


@dataclass(eq=False)
class ActiveJob:
    """A job that has not ended, and who waits for it.

    Attributes:
        job: it as it is now.
        told: the supervisor that was told to start it; empty before that, and None where only a
            server before this one knows.
        cancelled: whether it is to be ended.
        kill: whether without a grace.
        watchers: set whenever there may be something new.
        last_watched: when the last of them left, of the monotonic clock.
        ending: whether its end is being written down.
        text_bytes: of memory, of what it is to run.
        slot: the room that it takes, once it runs or is about to.
    """

    job: Job
    told: str | None = None
    cancelled: bool = False
    kill: bool = False
    watchers: set[asyncio.Event] = field(default_factory=set)
    last_watched: float = field(default_factory=time.monotonic)
    ending: bool = False
    slot: JobSlot | None = None
    text_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.text_bytes = self.job.spec.text_bytes

    def wake(self) -> None:
        """Let all watchers look."""
        for watcher in self.watchers:
            watcher.set()


class ActiveJobs(dict[str, ActiveJob]):
    """All of them, by their ids, and how much memory is taken by what they are to run.

    Attributes:
        text_bytes: of memory, of all of them.
        text_bytes_of: of those of each identity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text_bytes = 0
        self.text_bytes_of: Counter[str] = Counter()

    def __setitem__(self, job_id: str, active: ActiveJob) -> None:
        super().__setitem__(job_id, active)
        self._count(active, 1)

    def __delitem__(self, job_id: str) -> None:
        active = self[job_id]
        super().__delitem__(job_id)
        self._count(active, -1)

    def pop(self, job_id: str, default: ActiveJob | None = None) -> ActiveJob | None:  # type: ignore[override]
        """Take one out; ``default`` where it is not there."""
        active = self.get(job_id)
        if active is None:
            return default
        del self[job_id]
        return active

    def _count(self, active: ActiveJob, sign: int) -> None:
        job, size = active.job, sign * active.text_bytes
        self.text_bytes += size
        self.text_bytes_of[job.identity] += size
        if not self.text_bytes_of[job.identity]:
            del self.text_bytes_of[job.identity]
