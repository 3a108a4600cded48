"""Holds in memory the jobs that have not ended: the record of each, its place, and who watches it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from remsvc.execution.jobs.model import JobRecord
from remsvc.execution.jobs.slots import JobPlace
from remsvc.tally import Tally


class ActiveJob:
    """A job that has not ended.

    Args:
        job: its record.
        place: what it takes of the room for jobs.
        found: a server before this one claimed it. Whether that one told a supervisor to start it, only the
            supervisor knows.

    Attributes:
        job: its record as it is now.
        place: as given.
        told: the instance of the supervisor that was told to start it; empty as long as none was, and None
            where only a server before this one knows.
        cancelled: somebody wants it ended.
        kill: without a grace.
        ending: its end is being written down.
        last_watched: when its last watcher left, of the monotonic clock; at first, when it came to be here.
        text_bytes: of memory, taken by what it is to run.
    """

    def __init__(self, job: JobRecord, place: JobPlace, *, found: bool = False) -> None:
        self.job = job
        self.place = place
        self.told = None if found else ""
        self.cancelled = found and bool(job.reason)
        self.kill = False
        self.ending = False
        self.last_watched = time.monotonic()
        self.text_bytes = job.content.text_bytes
        self._watchers: set[asyncio.Event] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody watches it."""
        return bool(self._watchers)

    def update(self, job: JobRecord) -> None:
        """Its record is this one from now on."""
        self.job = job

    def note_told(self, instance: str) -> None:
        """This supervisor was told to start it; empty: it is certain that none was."""
        self.told = instance

    def cancel(self, *, kill: bool) -> bool:
        """Have it ended; whether this is the first time that anybody wants that."""
        first, self.cancelled = not self.cancelled, True
        self.kill = self.kill or kill
        return first

    def begin_end(self) -> bool:
        """Whether the caller is to write its end down: true for the first one who asks."""
        first, self.ending = not self.ending, True
        return first

    def add_watcher(self, wake: asyncio.Event) -> bool:
        """Set this event whenever there may be something new; whether it is the first watcher's."""
        self._watchers.add(wake)
        return len(self._watchers) == 1

    def remove_watcher(self, wake: asyncio.Event) -> bool:
        """Set this event no more; whether it was the last watcher's."""
        self._watchers.discard(wake)
        self.last_watched = time.monotonic()
        return not self._watchers

    def wake(self) -> None:
        """Let all watchers look."""
        for watcher in self._watchers:
            watcher.set()


class ActiveJobs:
    """All jobs that have not ended, by their ids."""

    def __init__(self) -> None:
        self._jobs: dict[str, ActiveJob] = {}
        self._text_bytes: Tally[str] = Tally()

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def __iter__(self) -> Iterator[ActiveJob]:
        """All of them as they are now; they may change meanwhile."""
        return iter(list(self._jobs.values()))

    def __getitem__(self, job_id: str) -> ActiveJob:
        return self._jobs[job_id]

    def ids(self) -> set[str]:
        """The ids of all of them."""
        return set(self._jobs)

    def get(self, job_id: str) -> ActiveJob | None:
        """The one with this id; None where there is no such job, or it has ended."""
        return self._jobs.get(job_id)

    @property
    def text_bytes(self) -> int:
        """How much memory is taken by what all of them are to run."""
        return self._text_bytes.total

    def text_bytes_of(self, identity: str) -> int:
        """How much memory is taken by what the jobs of one identity are to run."""
        return self._text_bytes.of(identity)

    def add(self, active: ActiveJob) -> None:
        """Add a job, whose id is new."""
        self._jobs[active.job.id] = active
        self._text_bytes.add(active.job.identity, active.text_bytes)

    def remove(self, active: ActiveJob) -> None:
        """Take a job out that has ended, or was not claimed. Idempotent."""
        if self._jobs.pop(active.job.id, None) is not None:
            self._text_bytes.remove(active.job.identity, active.text_bytes)
