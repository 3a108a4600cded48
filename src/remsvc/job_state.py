"""How a durable job stands: its state, and how much output it has. Server and client say both alike."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class OutputSize:
    """How much there is of one output, in bytes.

    Attributes:
        total: what the command has written.
        dropped: what of it was not kept, because of the output limit.
        head: what was kept before the part that was dropped; equal to ``total`` where nothing was.
    """

    total: int = 0
    dropped: int = 0
    head: int = 0

    @property
    def kept_end(self) -> int:
        """Where what was kept ends: ``total``, or ``head`` where all after it was dropped."""
        return self.head if self.head + self.dropped >= self.total else self.total


NO_OUTPUT = OutputSize()
"""Nothing was written."""
