"""How much durable jobs may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How much the jobs of a server may take.

    Attributes:
        max_running, max_queued: jobs at one time.
        max_text_bytes: of memory, of what the jobs run that have not ended; an identity alone may have
            three quarters of it.
        retention_seconds: age from which an ended job may be forgotten.
        retention_count, retention_bytes: ended jobs, and their output and what they ran, kept at most.
        collect_seconds: how often to look for jobs that need not be kept.
    """

    max_running: int = 256
    max_queued: int = 10_000
    max_text_bytes: int = 32 * 1024**2
    retention_seconds: float = 7 * 86_400
    retention_count: int = 10_000
    retention_bytes: int = 10 * 1024**3
    collect_seconds: float = 30.0
