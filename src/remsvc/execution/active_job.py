"""A job that has not ended, as the server has it in memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from remsvc.execution.job import Job


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
    """

    job: Job
    told: str | None = None
    cancelled: bool = False
    kill: bool = False
    watchers: set[asyncio.Event] = field(default_factory=set)
    last_watched: float = field(default_factory=time.monotonic)
    ending: bool = False

    def wake(self) -> None:
        """Let all watchers look."""
        for watcher in self.watchers:
            watcher.set()
