"""The exit codes of ``remsvc``, and which of them tells how a job has ended."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from remsvc.cli.terminal import warning_line
from remsvc.job_state import JobState

if TYPE_CHECKING:
    from remsvc.client.jobs import Job

FAILURE = 255
USAGE = 2
INTERRUPTED = 130
UNREAD = 141
"""Nobody reads the output any more. Shells report this code for a program that SIGPIPE has ended."""

NOT_STARTED = 1
TIMED_OUT = 124


def job_exit_code(job: Job) -> int:
    """The exit code that tells how a job has ended: 0 only where it has succeeded."""
    if job.state is JobState.TIMED_OUT:
        return TIMED_OUT
    if job.state is JobState.CANCELLED:
        return INTERRUPTED
    if job.state is JobState.LOST:
        return FAILURE
    return NOT_STARTED if job.exit_code is None else job.exit_code


def job_end_line(job: Job) -> str | None:
    """A line about a job's end; None where the exit code says everything."""
    nothing_ran = job.started_at is None and job.exit_code is None
    before = " before it started, and nothing ran" if nothing_ran else ""
    if job.state is JobState.TIMED_OUT:
        end = f"job {job.id} timed out{before}"
    elif job.state is JobState.CANCELLED:
        end = f"job {job.id} was cancelled{before}"
    elif job.state is JobState.LOST:
        end = f"job {job.id} is lost"
    elif job.exit_code is None:
        end = f"job {job.id} could not be started"
    else:
        return None
    return f"{end}: {job.reason}" if job.reason else end


def exit_as_command(code: int) -> NoReturn:
    """Exit with a command's exit code."""
    if os.name != "nt" and not 0 <= code <= 255:
        # A server on Windows may give a code that does not fit into a byte here. Its low byte alone could
        # be 0.
        warning_line(f"the command's exit code is {code}, which does not fit here: exiting with {FAILURE}")
        code = FAILURE
    sys.exit(code)
