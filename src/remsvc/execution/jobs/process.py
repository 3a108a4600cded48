"""Makes of a job the process that a supervisor is to start: its arguments, environment, user and limits."""

from __future__ import annotations

from functools import partial

from remsvc.execution.engine import ProcessSpec
from remsvc.execution.jobs.files import JobFiles
from remsvc.execution.jobs.model import JobRecord
from remsvc.execution.login import Login, login
from remsvc.execution.lookups import Lookups
from remsvc.execution.posix import PosixEngine
from remsvc.execution.shell import shell_argv
from remsvc.execution.supervisor.protocol import MARK, DurableJob, Start


async def job_process(job: JobRecord, own_login: Login, lookups: Lookups) -> ProcessSpec:
    """The process that a job runs.

    Args:
        own_login: the server's own, for a job that names no user.
        lookups: how users and shells are looked up.

    Raises:
        StartError, OSError: its user or its shell cannot be had.
    """
    content, surroundings = job.content, own_login
    if content.user:
        find = partial(login, content.user)
        surroundings = await lookups.for_start(job.identity, f"user {content.user}", find)
    env = {**surroundings.variables(), **content.env, MARK: job.id}
    argv = content.argv
    if content.shell_command is not None:
        choose = partial(shell_argv, content.shell_command, int(content.powershell), env.get("PATH", ""))
        # It is looked for in a PATH that the caller may have set.
        if content.powershell:
            argv = await lookups.for_start(job.identity, "PowerShell (pwsh)", choose)
        else:
            argv = choose()
    return ProcessSpec(
        argv=argv,
        env=env,
        cwd=content.cwd or surroundings.cwd,
        credentials=surroundings.credentials,
        time_limit=content.time_limit,
        output_limit=content.output_limit,
        caller=job.identity,
    )


def job_start_order(engine: PosixEngine, job: JobRecord, process: ProcessSpec, files: JobFiles) -> Start:
    """What tells a supervisor to start it."""
    durable = DurableJob(
        files.folder(job.id), kill_grace=job.content.kill_grace or 0.0, stdin=files.has_stdin(job.id)
    )
    return engine.start_order(job.id, process, cwd_required=bool(job.content.cwd), job=durable)
