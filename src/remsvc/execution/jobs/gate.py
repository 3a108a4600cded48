"""The gate: decides whether a job may start, and how many jobs of one identity may run and wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from remsvc.execution.jobs.model import JobRecord


@dataclass(frozen=True, slots=True)
class JobPermission:
    """Lets a job start, and tells whether that decision still stands when the job does.

    Attributes:
        stands: whether it would be decided the same way now. It is to be asked in the same step of the
            event loop that starts the job. It raises :class:`~remsvc.errors.StartError` where the one who
            asked for the job may not have it run any more.
        program: the path to start in place of the job's first argument; empty for that argument itself.
    """

    stands: Callable[[], bool]
    program: str = ""


class JobGate(Protocol):
    """Asked while jobs are created and started. What it answers may change at any time."""

    def running_limit(self, identity: str) -> int | None:
        """How many jobs of an identity may run now; None for as many as there is room for."""
        ...

    def queue_limit(self, identity: str) -> int | None:
        """How many jobs of an identity may wait; None for as many as there is room for."""
        ...

    def note_room(self, identity: str) -> None:
        """A job of an identity has ended: told before another one takes its place."""
        ...

    async def permit(self, job: JobRecord) -> JobPermission:
        """Decide anew on a job that was claimed earlier.

        Raises:
            StartError: it must not start.
        """
        ...


class OpenGate:
    """A gate that lets every job through."""

    def running_limit(self, identity: str) -> int | None:
        return None

    def queue_limit(self, identity: str) -> int | None:
        return None

    def note_room(self, identity: str) -> None:
        pass

    async def permit(self, job: JobRecord) -> JobPermission:
        return JobPermission(stands=lambda: True)
