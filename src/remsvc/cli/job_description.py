"""Describes a job as JSON for machines, and as words for people."""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta, timezone

from remsvc.client.jobs import Job


def command_of(job: Job) -> str:
    """The command of a job as text; an argument list is quoted as for a shell."""
    return job.spec.shell_command or "" if job.spec.argv is None else shlex.join(job.spec.argv)


def as_json(job: Job) -> dict[str, object]:
    """Everything about a job, with times as ISO 8601 in UTC."""
    spec = job.spec
    return {
        "id": job.id,
        "request_id": job.request_id,
        "state": job.state.value,
        "rc": job.exit_code,
        "signal": job.signal,
        "reason": job.reason,
        "command": command_of(job),
        "argv": None if spec.argv is None else list(spec.argv),
        "shell": None if spec.argv is not None else spec.shell_type,
        "user": spec.user,
        "cwd": spec.working_directory,
        "env": dict(spec.environment),
        "labels": dict(spec.labels),
        "source": spec.source,
        "identity": job.identity,
        "created_at": time_text(job.created_at),
        "started_at": time_text(job.started_at),
        "ended_at": time_text(job.ended_at),
        "expires_at": time_text(job.expires_at),
        "stdout_bytes": job.stdout.total,
        "stderr_bytes": job.stderr.total,
        "stdout_dropped_bytes": job.stdout.dropped,
        "stderr_dropped_bytes": job.stderr.dropped,
        "time_limit": spec.time_limit,
        "kill_grace": spec.kill_grace,
        "output_limit": spec.output_limit,
        "lease": spec.lease,
    }


def time_text(moment: datetime | None) -> str | None:
    """A time as ISO 8601 in UTC."""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def short_time(moment: datetime | None) -> str:
    """A time in short, in the local time zone: with the time of day unless it is long ago."""
    if moment is None:
        return ""
    local = moment.astimezone()
    recent = datetime.now(timezone.utc) - moment < timedelta(days=180)
    return local.strftime("%m-%d %H:%M" if recent else "%Y-%m-%d")


def duration(job: Job) -> str:
    """How long a job ran, or has been running until now."""
    if job.started_at is None:
        return ""
    end = job.ended_at or datetime.now(timezone.utc)
    seconds = max(0.0, (end - job.started_at).total_seconds())
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{seconds:02}s" if hours else f"{minutes}m{seconds:02}s"
