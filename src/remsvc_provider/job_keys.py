"""The keys of a command that only durable jobs understand, and the job that a command becomes.

A worker checks keys and makes no jobs: what only a job needs is loaded with the first one.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from remsvc.command import CommandType, crc32hex
from remsvc.errors import AlreadyExistsError, InvalidCommandError
from remsvc.validation import STANDARD_INPUT, check_text, check_unicode

if TYPE_CHECKING:
    from remsvc.client import AsyncClient
    from remsvc.client.jobs import Job, JobSpec

TIME_LIMIT = "airflow_time_limit"
"""Label of a job: the seconds that were asked for, of which a policy may leave less."""

JOB_KEYS = ("argv", "env", "cwd", "input")


def check_job_keys(command: Mapping[str, Any]) -> None:
    """Check the keys of one command.

    Raises:
        InvalidCommandError: naming the key, its value and what was expected.
    """
    if "argv" in command:
        _check_argv(command)
    if "env" in command:
        check_environment("env", command["env"])
    if "cwd" in command:
        check_working_directory("cwd", command["cwd"])
    if "input" in command:
        _check_input(command["input"])


def _check_argv(command: Mapping[str, Any]) -> None:
    argv = command["argv"]
    if isinstance(argv, (str, bytes)) or not isinstance(argv, Sequence):
        raise InvalidCommandError(f"argv must be a list of strings, not {type(argv).__name__}")
    for index, argument in enumerate(argv):
        check_text(f"argv[{index}]", argument)
    if not argv or not argv[0]:
        raise InvalidCommandError("argv must begin with the name of a program")
    if "cmd" in command:
        raise InvalidCommandError("cmd and argv are both given; expected one of them")
    if "cmdtyp" in command:
        raise InvalidCommandError("cmdtyp is given with argv, which runs without a shell; expected only one")


def check_environment(name: str, env: object) -> dict[str, str]:
    """Check environment variables. Their values are never quoted: one may be a secret.

    Returns:
        All as text: a whole number may be meant for nothing else. Of other values it is not certain: is it
        ``true``, ``True`` or ``1``; was it ``3.10`` before it became a number?

    Raises:
        InvalidCommandError: naming the variable.
    """
    if not isinstance(env, Mapping):
        raise InvalidCommandError(f"{name} must be a dict of strings, not {type(env).__name__}")
    for variable, value in env.items():
        check_text(f"the name of a variable in {name}", variable)
        if not variable or "=" in variable:
            raise InvalidCommandError(f"{name} has {variable!r}, which cannot be the name of a variable")
        if isinstance(value, bool) or not isinstance(value, int):
            check_text(f"{name}[{variable!r}]", value)
    return {variable: str(value) for variable, value in env.items()}


def check_working_directory(name: str, cwd: object) -> str:
    """Check a working directory, on a system that is not known here.

    Raises:
        InvalidCommandError: it is no absolute path.
    """
    check_text(name, cwd)
    path = str(cwd)
    if not (PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()):
        raise InvalidCommandError(f"{name} is {path!r}; expected an absolute path")
    return path


def _check_input(value: object) -> None:
    if not isinstance(value, (str, bytes)):
        raise InvalidCommandError(f"input must be text or bytes, not {type(value).__name__}")
    if isinstance(value, str):
        check_unicode("input", value)
    replace(STANDARD_INPUT, field="input").check(value)


def storable(command: Mapping[str, Any]) -> dict[str, Any]:
    """A checked command as a trigger's argument, which has to be JSON."""
    stored = dict(command)
    if "argv" in stored:
        stored["argv"] = list(stored["argv"])
    if isinstance(stored.get("input"), bytes):
        stored["input"] = {"base64": base64.b64encode(stored["input"]).decode()}
    return stored


def program_text(command: Mapping[str, Any]) -> str:
    """What is run, for a person: a shell would read ``argv`` from it."""
    return shlex.join(command["argv"]) if "argv" in command else command["cmd"]


def program_hash(command: Mapping[str, Any]) -> str:
    """The hash that travels with it."""
    return crc32hex("\0".join(command["argv"]) if "argv" in command else command["cmd"])


def job_spec(command: Mapping[str, Any], *, labels: Mapping[str, str], time_limit: float | None) -> JobSpec:
    """The job for a checked, stored command."""
    from remsvc.client.jobs import JobSpec

    powershell = command.get("cmdtyp") == CommandType.POWERSHELL
    return JobSpec(
        shell_command=None if "argv" in command else command["cmd"],
        argv=tuple(command["argv"]) if "argv" in command else None,
        shell_type="powershell" if powershell else "native",
        user=command.get("cmdusr") or "",
        working_directory=command.get("cwd") or "",
        environment=command.get("env") or {},
        standard_input=input_bytes(command.get("input")),
        time_limit=time_limit,
        labels=labels,
        source=command.get("src") or "",
    )


async def same_job(
    client: AsyncClient, job: Job, command: Mapping[str, Any], metadata: Sequence[tuple[str, str]]
) -> Job | None:
    """The job, where it was created for just this command; else None.

    Its content cannot be compared here: the server's policy may have changed what it shows of it, and
    nobody is told its input. So the server is asked to create it once more, as it was asked the first
    time. It gives the same job, or says that something is different.

    Raises:
        ServerError: the server does not answer.
    """
    asked = job.spec.labels.get(TIME_LIMIT)
    try:
        time_limit = job.spec.time_limit if asked is None else float(asked)
        spec = job_spec(command, labels=job.spec.labels, time_limit=time_limit)
        return await client.create_job(spec, job.request_id, metadata=metadata)
    except (AlreadyExistsError, InvalidCommandError, ValueError):
        return None  # the second and the third: its labels are none of ours


def input_bytes(value: Any) -> bytes:
    """The input of a stored command, as the command reads it: no input is an empty one."""
    if isinstance(value, Mapping):
        return base64.b64decode(value["base64"])
    return value.encode() if isinstance(value, str) else value or b""
