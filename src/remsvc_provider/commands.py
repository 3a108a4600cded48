"""Says which keys a task's commands may have, and checks them once their templates are rendered.

Also how a trigger stores a command, and what of it is shown to people.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from remsvc.command import Command, crc32hex
from remsvc.errors import InvalidCommandError
from remsvc.validation import STANDARD_INPUT, WORKING_DIRECTORY, check_arguments, check_text, check_unicode
from remsvc_provider.version_compat import AirflowException

KEYS = tuple(field.name for field in fields(Command))
"""The keys of a command that every server understands."""
JOB_KEYS = ("argv", "env", "cwd", "input")
"""The keys that only a server with durable jobs understands."""


@dataclass(frozen=True, slots=True)
class TaskCommand:
    """One command of a task, checked. What is None was not given.

    Attributes:
        cmd: a text for a shell; or ``argv``.
        argv: a program and its arguments.
        cmdtyp: which shell: a :class:`~remsvc.command.CommandType`.
        cmdusr: the user to run as.
        src: where it comes from, for the server's log.
        env: environment variables.
        cwd: the working directory.
        input: what it reads from its standard input.
    """

    cmd: str | None = None
    cmdtyp: int | None = None
    cmdusr: str | None = None
    src: str | None = None
    argv: Sequence[str] | None = None
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    input: str | bytes | None = None

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> TaskCommand:
        """Read what :meth:`stored` of this version or another gave; a key that is unknown here is left out.

        Raises:
            TypeError, ValueError, LookupError: it is nothing of that kind.
        """
        given = {key: stored[key] for key in (*KEYS, *JOB_KEYS) if stored.get(key) is not None}
        if isinstance(given.get("input"), Mapping):
            given["input"] = base64.b64decode(given["input"]["base64"])
        return cls(**given)

    def stored(self) -> dict[str, Any]:
        """The command as a trigger's argument, which has to be JSON."""
        stored = self.given
        if self.argv is not None:
            stored["argv"] = list(self.argv)
        if isinstance(self.input, bytes):
            stored["input"] = {"base64": base64.b64encode(self.input).decode()}
        return stored

    @property
    def given(self) -> dict[str, Any]:
        """What was given, by the keys of the operator's dict."""
        given = {key: getattr(self, key) for key in (*KEYS, *JOB_KEYS)}
        return {key: value for key, value in given.items() if value is not None}

    @property
    def job_keys(self) -> list[str]:
        """What of it only a server with durable jobs understands."""
        return [key for key in JOB_KEYS if getattr(self, key) is not None]

    @property
    def of_version_1(self) -> Command:
        """The command as every server understands it."""
        given = {key: getattr(self, key) for key in KEYS}
        return Command(**{"cmd": "", **{key: value for key, value in given.items() if value is not None}})

    @property
    def input_bytes(self) -> bytes:
        """What it reads from its standard input: without ``input``, that is empty."""
        return self.input.encode() if isinstance(self.input, str) else self.input or b""

    @property
    def hash(self) -> str:
        """The hash that travels with it."""
        return crc32hex(self.cmd or "" if self.argv is None else "\0".join(self.argv))

    def text(self, masking: Callable[[str], str]) -> str:
        """What runs, for a person, without secrets: a shell would read ``argv`` from it."""
        if self.argv is None:
            return masking(self.cmd or "")
        return shlex.join(map(masking, self.argv))


def check_commands(commands: object, env: object = None, cwd: object = None) -> list[TaskCommand]:
    """Check the whole list.

    Args:
        commands: as the operator got them.
        env, cwd: what holds for every command that does not set its own.

    Returns:
        The commands, each with the ``env`` and ``cwd`` that hold for all of them.

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
            checked.append(TaskCommand(**complete))
    if problems:
        raise AirflowException("; ".join(problems))
    return checked


def _defaults(env: object, cwd: object) -> dict[str, Any]:
    """The operator's own ``env`` and ``cwd``, as keys of a command. Raises :class:`InvalidCommandError`."""
    defaults: dict[str, Any] = {}
    if env:
        defaults["env"] = _check_environment("env", env)
    if cwd:
        defaults["cwd"] = _check_working_directory("cwd", cwd)
    return defaults


def _with_defaults(command: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **command}
    if "env" in merged:
        merged["env"] = {**defaults.get("env", {}), **_check_environment("env", command.get("env", {}))}
    return merged


def _check(command: object) -> None:
    if not isinstance(command, Mapping):
        raise InvalidCommandError(f"expected a dict, not {type(command).__name__}")
    if unknown := [key for key in command if key not in (*KEYS, *JOB_KEYS)]:
        raise InvalidCommandError(
            f"unknown key {', '.join(map(repr, unknown))}; expected only {', '.join((*KEYS, *JOB_KEYS))}"
        )
    _check_job_keys(command)
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


def _check_job_keys(command: Mapping[str, Any]) -> None:
    """Check the keys of one command.

    Raises:
        InvalidCommandError: naming the key, its value and what was expected.
    """
    if "argv" in command:
        _check_argv(command)
    if "env" in command:
        _check_environment("env", command["env"])
    if "cwd" in command:
        _check_working_directory("cwd", command["cwd"])
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


def _check_environment(name: str, env: object) -> dict[str, str]:
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


def _check_working_directory(name: str, cwd: object) -> str:
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
