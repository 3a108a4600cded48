"""The ``[jobs]`` section of the configuration: durable jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

from remsvc.execution.jobs.model import JobLimits
from remsvc.server.settings.schema import Key, Kind, Section
from remsvc.server.settings.settings import Settings

_MAX = 2**31 - 1
_MAX_BYTES = 2**50

JOBS_SECTION = Section(
    "jobs",
    (
        Key("enabled"),
        Key("max_running"),
        Key("max_queued"),
        Key("max_text_bytes"),
        Key("time_limit_ms", reloads=True),
        Key("kill_grace_ms", reloads=True),
        Key("output_limit_bytes", reloads=True),
        Key("max_output_limit_bytes", reloads=True),
        Key("retention_hours"),
        Key("retention_count"),
        Key("retention_bytes"),
        Key("admins", Kind.TEXT, reloads=True),
    ),
)
"""The keys of ``[jobs]``; how the processes of all commands are kept is the commands' own."""


@dataclass(frozen=True, slots=True)
class JobConfig:
    """Durable jobs.

    Attributes:
        limits: how much all jobs may take.
        time_limit: seconds for a job that names no limit of its own; None for none.
        kill_grace: seconds between TERM and KILL for a job that names none.
        output_limit: bytes kept of each output of a job that names no limit.
        max_output_limit: the highest limit that a job may name.
        admins: identities that see and cancel everyone's jobs.
    """

    limits: JobLimits = field(default_factory=JobLimits)
    time_limit: float | None = None
    kill_grace: float = 10.0
    output_limit: int = 64 * 1024**2
    max_output_limit: int = 1024**3
    admins: frozenset[str] = frozenset()


def read_jobs(settings: Settings) -> JobConfig | None:
    """The section, or None where jobs are switched off. Problems go to ``settings``."""
    default, limits = JobConfig(), JobLimits()

    def number(key: str, value: int, low: int, high: int, hint: str = "") -> int:
        return settings.integer("jobs", key, value, low, high, hint)

    time_limit = number("time_limit_ms", 0, 0, _MAX, "0 for none")
    hours = number("retention_hours", round(limits.retention_seconds / 3600), 0, 24 * 3660)
    config = JobConfig(
        limits=JobLimits(
            max_running=number("max_running", limits.max_running, 1, 100_000),
            max_queued=number("max_queued", limits.max_queued, 0, 1_000_000),
            max_text_bytes=number("max_text_bytes", limits.max_text_bytes, 1024**2, _MAX_BYTES),
            retention_seconds=hours * 3600,
            retention_count=number("retention_count", limits.retention_count, 0, 10_000_000),
            retention_bytes=number("retention_bytes", limits.retention_bytes, 0, _MAX_BYTES),
        ),
        time_limit=time_limit / 1000 or None,
        kill_grace=number("kill_grace_ms", round(default.kill_grace * 1000), 0, _MAX) / 1000,
        output_limit=number("output_limit_bytes", default.output_limit, 1, _MAX_BYTES),
        max_output_limit=number("max_output_limit_bytes", default.max_output_limit, 1, _MAX_BYTES),
        admins=frozenset(
            name.strip() for name in (settings.text("jobs", "admins") or "").split(",") if name.strip()
        ),
    )
    return config if settings.boolean("jobs", "enabled", default=True) else None
