"""Checks the operator's commands, once their templates are rendered and before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from remsvc.command import Command
from remsvc.errors import InvalidCommandError
from remsvc.validation import WORKING_DIRECTORY, check_arguments
from remsvc_provider.job_keys import JOB_KEYS, check_environment, check_job_keys, check_working_directory
from remsvc_provider.version_compat import AirflowException

KEYS = tuple(field.name for field in fields(Command))
"""The keys of a command that every server understands."""


def check_commands(commands: object, env: object = None, cwd: object = None) -> list[dict[str, Any]]:
    """Check the whole list, and return it as plain dicts.

    Args:
        commands: as the operator got them.
        env, cwd: what holds for every command that does not set its own.

    Raises:
        AirflowException: naming every wrong command by its index, counted from 0 as in
            ``commands[0]``.
    """
    if isinstance(commands, (str, bytes, Mapping)) or not isinstance(commands, Sequence):
        raise AirflowException(f"commands must be a list of dicts, not {type(commands).__name__}")
    if not commands:
        raise AirflowException(
            "commands must not be empty: it is a list of dicts such as {'cmd': 'hostname'}"
        )
    try:
        defaults = _defaults(env, cwd)
    except InvalidCommandError as error:
        raise AirflowException(str(error)) from None
    checked, problems = [], []
    for index, command in enumerate(commands):
        try:
            _check(command)
            complete = _with_defaults(command, defaults)
            _check_size(complete)
        except InvalidCommandError as error:
            problems.append(f"commands[{index}]: {error}")
        else:
            checked.append(complete)
    if problems:
        raise AirflowException("; ".join(problems))
    return checked


def _defaults(env: object, cwd: object) -> dict[str, Any]:
    """The operator's own ``env`` and ``cwd``, as keys of a command. Raises :class:`InvalidCommandError`."""
    defaults: dict[str, Any] = {}
    if env:
        defaults["env"] = check_environment("env", env)
    if cwd:
        defaults["cwd"] = check_working_directory("cwd", cwd)
    return defaults


def _with_defaults(command: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **command}
    if "env" in merged:
        merged["env"] = {**defaults.get("env", {}), **check_environment("env", command.get("env", {}))}
    return merged


def _check(command: object) -> None:
    if not isinstance(command, Mapping):
        raise InvalidCommandError(f"expected a dict, not {type(command).__name__}")
    if unknown := [key for key in command if key not in (*KEYS, *JOB_KEYS)]:
        raise InvalidCommandError(
            f"unknown key {', '.join(map(repr, unknown))}; expected only {', '.join((*KEYS, *JOB_KEYS))}"
        )
    check_job_keys(command)
    basic = {key: command[key] for key in KEYS if key in command}
    if "argv" in command:
        Command(**{**basic, "cmd": "argv"}).validate()
        return
    cmd = command.get("cmd", "")
    if isinstance(cmd, str) and not cmd.strip():
        raise InvalidCommandError("cmd is missing, empty or blank; expected the text of a command")
    Command(**basic).validate()


def _check_size(command: Mapping[str, Any]) -> None:
    """Whether a server could start it: all of a list is refused for one, before the first runs."""
    check_arguments(command.get("argv") or [command["cmd"]], command.get("env", {}))
    WORKING_DIRECTORY.check(command.get("cwd", ""))


def to_command(command: Mapping[str, Any]) -> Command:
    """A command of a stored trigger. The operator that stored it has checked it; a trigger of
    version 1.0.0, which checked less, may also hold ``None`` for what is left out."""
    return Command(**{"cmd": "", **{key: command[key] for key in KEYS if command.get(key) is not None}})
