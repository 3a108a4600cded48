"""The states of a durable job, the same on the server and in the client."""

from __future__ import annotations

from enum import Enum


class JobState(str, Enum):
    """Where a job stands. It never leaves a state in which it has ended."""

    QUEUED = "QUEUED"
    """Waits for room to run."""
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    """Ended with exit code 0."""
    FAILED = "FAILED"
    """Ended with another exit code or by a signal, or could not be started."""
    CANCELLED = "CANCELLED"
    """Ended because somebody cancelled it, or its lease ran out."""
    TIMED_OUT = "TIMED_OUT"
    """Ended because its time limit was reached."""
    LOST = "LOST"
    """What became of it cannot be known."""

    def __str__(self) -> str:
        return self.value

    @property
    def ended(self) -> bool:
        """Whether it is an end."""
        return self not in (JobState.QUEUED, JobState.RUNNING)
