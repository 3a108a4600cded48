"""From what a job runs to the process that a supervisor is told to start."""

from __future__ import annotations

import asyncio

from remsvc.errors import StartError
from remsvc.execution.engine import MARK, ProcessSpec
from remsvc.execution.frames import Header
from remsvc.execution.job import Job
from remsvc.execution.job_files import JobFiles
from remsvc.execution.login import Login, login
from remsvc.execution.posix import PosixEngine
from remsvc.execution.shell import shell_argv
from remsvc.time_limit import TimeLimit

_LOOKUP_SECONDS = 10.0


async def job_process(job: Job, own_login: Login) -> ProcessSpec:
    """The process that a job runs.

    Args:
        own_login: the server's own, for a job that names no user.

    Raises:
        StartError, OSError: its user or its shell cannot be had.
    """
    spec, surroundings = job.spec, own_login
    try:
        if spec.user:
            with TimeLimit(_LOOKUP_SECONDS):
                surroundings = await asyncio.to_thread(login, spec.user)
    except TimeoutError:
        raise StartError(f"user {spec.user} could not be looked up in time") from None
    env = {**surroundings.env, **spec.env, MARK: job.id}
    argv = spec.argv
    if spec.shell_command is not None:
        argv = shell_argv(spec.shell_command, int(spec.powershell), env.get("PATH", ""))
    return ProcessSpec(
        argv=argv,
        env=env,
        cwd=spec.cwd or surroundings.cwd,
        credentials=surroundings.credentials,
        time_limit=spec.time_limit,
        output_limit=spec.output_limit,
    )


def job_start_message(engine: PosixEngine, job: Job, process: ProcessSpec, files: JobFiles) -> Header:
    """What tells a supervisor to start it."""
    return {
        **engine.start_message(job.id, process),
        "cwd_required": bool(job.spec.cwd),
        "job": {
            "folder": str(files.folder(job.id)),
            "kill_grace": job.spec.kill_grace or 0.0,
            "stdin": files.has_stdin(job.id),
        },
    }
