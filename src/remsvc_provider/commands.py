"""Checks the operator's parameters, once their templates are rendered and before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from remsvc.command import Command
from remsvc.errors import InvalidCommandError
from remsvc.validation import WORKING_DIRECTORY, check_arguments
from remsvc_provider.job_keys import JOB_KEYS, check_environment, check_job_keys, check_working_directory
from remsvc_provider.version_compat import AirflowException

KEYS = tuple(field.name for field in fields(Command))
"""The keys of a command that every server understands."""

DEFAULT_MAX_OUTPUT_BYTES = 262_144
ON_KILL = ("cancel", "leave")
LONGEST_SECONDS = 315_360_000
"""Of a time limit."""


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


def check_metadata(metadata: object) -> list[tuple[str, str]]:
    """Check the call metadata. No value is ever quoted: it may be a token.

    Raises:
        AirflowException: naming the wrong entry by its index, counted from 0.
    """
    if metadata is None:
        return []
    if isinstance(metadata, (str, bytes, Mapping)) or not isinstance(metadata, Sequence):
        raise AirflowException(f"metadata must be a list of pairs, not {type(metadata).__name__}")
    for index, pair in enumerate(metadata):
        if (
            isinstance(pair, (str, bytes))
            or not isinstance(pair, Sequence)
            or len(pair) != 2
            or not all(isinstance(item, str) for item in pair)
        ):
            raise AirflowException(f"metadata[{index}] must be a pair of strings: a key and its value")
    return [(key, value) for key, value in metadata]


def check_stream_timeout(stream_timeout: object) -> float:
    """Check the time limit in seconds.

    Raises:
        AirflowException: it is not a number above 0, or more than any clock has to count.
    """
    number = isinstance(stream_timeout, (int, float)) and not isinstance(stream_timeout, bool)
    if not number or not 0 < stream_timeout <= LONGEST_SECONDS:  # type: ignore[operator]
        raise AirflowException(
            f"stream_timeout is {stream_timeout!r}; expected a number of seconds above 0, at most "
            f"{LONGEST_SECONDS} (ten years)"
        )
    return float(stream_timeout)  # type: ignore[arg-type]


def check_number(name: str, value: object, least: int) -> int:
    """Check a whole number.

    Raises:
        AirflowException: it is none, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise AirflowException(f"{name} is {value!r}; expected a whole number from {least} on")
    return value


def check_max_log_bytes(max_log_bytes: object) -> int | None:
    """Check how much of an output goes into the task's log; None: as airflow.cfg says.

    Raises:
        AirflowException: it is no whole number from 1 on.
    """
    return None if max_log_bytes is None else check_number("max_log_bytes", max_log_bytes, 1)


def check_log_drain(log_drain: object) -> float | None:
    """Check how long an ended command waits for its log, in seconds; None: as airflow.cfg says.

    Raises:
        AirflowException: it is not a number from 0 on, or more than any clock has to count.
    """
    if log_drain is None:
        return None
    number = isinstance(log_drain, (int, float)) and not isinstance(log_drain, bool)
    if not number or not 0 <= log_drain <= LONGEST_SECONDS:  # type: ignore[operator]
        raise AirflowException(
            f"log_drain is {log_drain!r}; expected a number of seconds from 0 on, at most "
            f"{LONGEST_SECONDS} (ten years)"
        )
    return float(log_drain)  # type: ignore[arg-type]


def check_exit_codes(codes: object) -> list[int]:
    """Check ``skip_on_exit_code``: None, a number, or several.

    Raises:
        AirflowException: one of them is no exit code of a failed command.
    """
    if codes is None:
        return []
    several = codes if isinstance(codes, Iterable) and not isinstance(codes, (str, bytes)) else [codes]
    checked = list(several)
    for code in checked:
        if isinstance(code, bool) or not isinstance(code, int) or code == 0:
            raise AirflowException(
                f"skip_on_exit_code has {code!r}; expected an exit code other than 0, or a list of them"
            )
    return checked


def check_on_kill(on_kill: object) -> str:
    """Check what becomes of the jobs when the task is killed.

    Raises:
        AirflowException: it is not a choice.
    """
    if on_kill not in ON_KILL:
        raise AirflowException(f"on_kill is {on_kill!r}; expected {' or '.join(map(repr, ON_KILL))}")
    return str(on_kill)
