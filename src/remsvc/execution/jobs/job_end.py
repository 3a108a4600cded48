"""From how a process ended to how its job ended."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from remsvc.execution.jobs.model import Job, OutputSize
from remsvc.job_state import JobState


def ended_job(job: Job, record: dict[str, Any]) -> Job:
    """The job that ended as ``record`` says (:mod:`remsvc.execution.supervisor.exit_record`).

    Where it was cancelled, its reason already says why. Whatever its state, the reason says as well what of
    its output could not be kept.
    """
    code, signal = record.get("exit_code"), record.get("signal")
    state, reason = JobState.FAILED, ""
    if "error" in record:
        reason = record["error"]
    elif record.get("cause") == "time limit":
        state, reason = JobState.TIMED_OUT, f"its time limit of {job.spec.time_limit:g} s was reached"
    elif record.get("cause") == "cancelled":
        state, reason = JobState.CANCELLED, job.reason or "cancelled"
    elif code == 0:
        state = JobState.SUCCEEDED
    elif signal:
        reason = f"ended by signal {signal}"
    totals = record.get("totals", (0, 0))
    gaps = record.get("gaps", ((0, 0), (0, 0)))
    sizes = [OutputSize(total, *gap) for total, gap in zip(totals, gaps, strict=True)]
    return dataclasses.replace(
        job,
        state=state,
        reason=_text("; ".join(filter(None, (reason, record.get("left"), loss_of_output(record))))),
        exit_code=128 + signal if signal else code,
        signal=signal,
        started=record.get("started", job.started),
        ended=record.get("ended") or time.time(),
        stdout=sizes[0],
        stderr=sizes[1],
    )


def loss_of_output(record: dict[str, Any]) -> str:
    """What of the output could not be stored, as a record says it, for a person; empty for nothing."""
    lost: dict[str, Any] = record.get("lost") or {}
    streams = (("stdout", "standard output"), ("stderr", "standard error"))
    parts = [f"{lost[key]} bytes of {name}" for key, name in streams if lost.get(key)]
    return f"{' and '.join(parts)} could not be stored: {lost.get('why') or 'an error'}" if parts else ""


def _text(reason: str) -> str:
    """As it can be written down and sent: an error may name a file whose name is no text."""
    return reason.encode(errors="replace").decode()
