"""Checks the operator's parameters, once their templates are rendered and before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from remsvc.command import Command
from remsvc.errors import InvalidCommandError
from remsvc_provider.version_compat import AirflowException

KEYS = tuple(field.name for field in fields(Command))


def check_commands(commands: object) -> list[dict[str, Any]]:
    """Check the whole list, and return it as plain dicts.

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
    problems = []
    for index, command in enumerate(commands):
        try:
            _check(command)
        except InvalidCommandError as error:
            problems.append(f"commands[{index}]: {error}")
    if problems:
        raise AirflowException("; ".join(problems))
    return [dict(command) for command in commands]


def _check(command: object) -> None:
    if not isinstance(command, Mapping):
        raise InvalidCommandError(f"expected a dict, not {type(command).__name__}")
    if unknown := [key for key in command if key not in KEYS]:
        raise InvalidCommandError(
            f"unknown key {', '.join(map(repr, unknown))}; expected only {', '.join(KEYS)}"
        )
    cmd = command.get("cmd", "")
    if isinstance(cmd, str) and not cmd.strip():
        raise InvalidCommandError("cmd is missing, empty or blank; expected the text of a command")
    Command(**command).validate()


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
        AirflowException: it is not a finite number above 0.
    """
    number = isinstance(stream_timeout, (int, float)) and not isinstance(stream_timeout, bool)
    if not number or not math.isfinite(stream_timeout) or stream_timeout <= 0:  # type: ignore[arg-type, operator]
        raise AirflowException(f"stream_timeout is {stream_timeout!r}; expected a number of seconds above 0")
    return float(stream_timeout)  # type: ignore[arg-type]
