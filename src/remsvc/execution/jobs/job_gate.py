"""What bounds the jobs of single identities, and whether one that waited may still start."""

from __future__ import annotations

from typing import Protocol

from remsvc.execution.jobs.model import Job


class JobPermission(Protocol):
    """That a job may start, as it was decided at some time."""

    @property
    def program(self) -> str:
        """The path to start in place of the job's first argument; empty for that argument itself."""
        ...

    def stands(self) -> bool:
        """Whether it would be decided the same way now; to be asked in the step that starts the job.

        Raises:
            StartError: who asked for the job may not have it run any more.
        """
        ...


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

    async def permit(self, job: Job) -> JobPermission:
        """Decide anew on a job that was claimed earlier.

        Raises:
            StartError: it must not start.
        """
        ...


class OpenGate:
    """A gate that lets every job through, and the permission for that."""

    @property
    def program(self) -> str:
        return ""

    def running_limit(self, identity: str) -> int | None:
        return None

    def queue_limit(self, identity: str) -> int | None:
        return None

    def note_room(self, identity: str) -> None:
        pass

    async def permit(self, job: Job) -> JobPermission:
        return self

    def stands(self) -> bool:
        return True
