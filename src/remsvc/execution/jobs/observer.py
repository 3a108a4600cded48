"""Tells others, such as the audit log, of every new state of a job."""

from __future__ import annotations

import logging
from typing import Protocol

from remsvc.execution.jobs.model import JobRecord

_logger = logging.getLogger("remsvc.job")


class JobObserver(Protocol):
    """Told of every new state of a job, durable or not. Called in the event loop; must not block."""

    def on_state(self, job: JobRecord) -> None:
        """A job is queued or running, or a version-1 command has ended."""
        ...

    async def before_end(self, job: JobRecord) -> None:
        """A durable job has ended as ``job`` says; no caller hears of that before this returns.

        It must return within seconds. After a crash of the server, the same end may be told once more.
        """
        ...


class NobodyObserves:
    """An observer that does nothing."""

    def on_state(self, job: JobRecord) -> None:
        pass

    async def before_end(self, job: JobRecord) -> None:
        pass


class GuardedObserver:
    """Passes everything on to an observer. An error that it raises is logged, and stops no job."""

    def __init__(self, observer: JobObserver) -> None:
        self._observer = observer

    def on_state(self, job: JobRecord) -> None:
        try:
            self._observer.on_state(job)
        except Exception:
            _logger.exception("what became of job %s could not be told", job.id)

    async def before_end(self, job: JobRecord) -> None:
        try:
            await self._observer.before_end(job)
        except Exception:
            _logger.exception("that job %s has ended could not be told", job.id)
