"""What bounds the jobs of single identities, and whether one that waited may still start."""

from __future__ import annotations

from typing import Protocol

from remsvc.execution.job import Job


class JobGate(Protocol):
    """Asked while jobs are created and started. What it answers may change at any time."""

    def running_limit(self, identity: str) -> int | None:
        """How many jobs of an identity may run now; None for as many as there is room for."""
        ...

    def queue_limit(self, identity: str) -> int | None:
        """How many jobs of an identity may wait; None for as many as there is room for."""
        ...

    async def refusal(self, job: Job) -> str:
        """Why a job that was claimed earlier must not start now; empty where it may."""
        ...


class OpenGate:
    """A gate that lets every job through."""

    def running_limit(self, identity: str) -> int | None:
        return None

    def queue_limit(self, identity: str) -> int | None:
        return None

    async def refusal(self, job: Job) -> str:
        return ""
