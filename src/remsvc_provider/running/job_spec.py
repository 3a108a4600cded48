"""The durable job that a command becomes, and whether a job that is there already is just this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from remsvc.client import AsyncClient
from remsvc.client.jobs import Job, JobSpec
from remsvc.command import CommandType
from remsvc.errors import AlreadyExistsError, InvalidCommandError
from remsvc_provider.commands import TaskCommand

TIME_LIMIT = "airflow_time_limit"
"""Label of a job: the seconds that were asked for, of which a policy may leave less."""


def job_spec(command: TaskCommand, *, labels: Mapping[str, str], time_limit: float | None) -> JobSpec:
    """The job that a command becomes."""
    powershell = command.cmdtyp == CommandType.POWERSHELL
    return JobSpec(
        shell_command=command.cmd if command.argv is None else None,
        argv=None if command.argv is None else tuple(command.argv),
        shell_type="powershell" if powershell else "native",
        user=command.cmdusr or "",
        working_directory=command.cwd or "",
        environment=command.env or {},
        standard_input=command.input_bytes,
        time_limit=time_limit,
        labels=labels,
        source=command.src or "",
    )


async def same_job(
    client: AsyncClient, job: Job, command: TaskCommand, metadata: Sequence[tuple[str, str]]
) -> Job | None:
    """The job, where it was created for just this command; else None.

    Its content cannot be compared here: the server's policy may have changed what it shows of it, and
    nobody is told its input. So the server is asked to create it once more, as it was asked the first
    time. It gives the same job, or says that something is different.

    Raises:
        ServerError: the server does not answer; the caller decides whether to ask again.
    """
    asked = job.spec.labels.get(TIME_LIMIT)
    try:
        time_limit = job.spec.time_limit if asked is None else float(asked)
        spec = job_spec(command, labels=job.spec.labels, time_limit=time_limit)
        return await client.create_job(spec, job.request_id, repeat=False, metadata=metadata)
    except (AlreadyExistsError, InvalidCommandError, ValueError):
        return None  # the second and the third: its labels are none of ours
