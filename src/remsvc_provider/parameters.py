"""Checks what a task was given, once its templates are rendered: in a worker and in a triggerer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from remsvc_provider.commands import check_commands
from remsvc_provider.masking import secrets_in
from remsvc_provider.metadata import check_metadata, split
from remsvc_provider.plan import Plan, RunOptions
from remsvc_provider.version_compat import AirflowException

FIELDS = ("commands", "grpc_conn_id", "metadata", "env", "cwd")
"""The operator's template fields."""
ON_KILL = ("cancel", "leave")
LONGEST_SECONDS = 315_360_000
"""Of a time limit."""


def checked_plan(
    *,
    commands: object,
    env: object,
    cwd: object,
    metadata: object,
    stream_timeout: object,
    options: RunOptions,
    known_secrets: bool = True,
) -> Plan:
    """The plan of a task's parameters, as far as they tell it.

    Args:
        commands, env, cwd, metadata, stream_timeout: the operator's, rendered.
        options: the operator's, unchecked.
        known_secrets: whether to mask every value that Airflow knows as a secret in this process. False in a
            triggerer whose task reads none: the triggerer knows the secrets of other tasks.

    Raises:
        AirflowException: one cannot be used; names it, its value and what was expected.
    """
    checked_commands = check_commands(commands, env, cwd)
    seconds = check_seconds("stream_timeout", stream_timeout, zero=False)
    checked_options = check_options(options)
    public, secret = split(check_metadata(metadata))
    shown = [*(command.given for command in checked_commands), *public]
    named = [{key: value} for key, value in public]
    return Plan(
        commands=checked_commands,
        stream_timeout=seconds,
        metadata=public + secret,
        # Of the metadata the keys too, and what stands under a key that says so.
        secrets=sorted(secrets_in([*shown, *named], known=known_secrets)),
        options=checked_options,
    )


def check_options(given: RunOptions) -> RunOptions:
    """Check the operator's parameters that have no templates.

    Raises:
        AirflowException: one cannot be used; names it, its value and what was expected.
    """
    return RunOptions(**{name: _CHECKS[name](name, value) for name, value in given.by_name().items()})


def check_number(name: str, value: object) -> int:
    """Check a whole number from 1 on.

    Raises:
        AirflowException: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AirflowException(f"{name} is {value!r}; expected a whole number from 1 on")
    return value


def check_seconds(name: str, value: object, *, zero: bool) -> float:
    """Check a time.

    Args:
        name: of the parameter.
        value: of the parameter.
        zero: whether it may be 0.

    Raises:
        AirflowException: it is no number, below 0, or more than any clock has to count.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value <= LONGEST_SECONDS
        or (value == 0 and not zero)
    ):
        bounds = f"{'from 0 on' if zero else 'above 0'}, at most {LONGEST_SECONDS} (ten years)"
        raise AirflowException(f"{name} is {value!r}; expected a number of seconds {bounds}")
    return float(value)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Check what is one of several.

    Raises:
        AirflowException: it is none of them.
    """
    if value not in choices:
        *others, last = map(repr, choices)
        raise AirflowException(f"{name} is {value!r}; expected {', '.join(others)} or {last}")
    return value


def _exit_codes(name: str, codes: object) -> list[int]:
    """None, a number, or several."""
    if codes is None:
        return []
    several = codes if isinstance(codes, Iterable) and not isinstance(codes, (str, bytes)) else [codes]
    checked = list(several)
    for code in checked:
        if isinstance(code, bool) or not isinstance(code, int) or code == 0:
            raise AirflowException(
                f"{name} has {code!r}; expected an exit code other than 0, or a list of them"
            )
    return checked


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "max_output_bytes": check_number,
    "skip_on_exit_code": _exit_codes,
    "parallel": check_number,
    "durable": lambda name, value: bool(check_choice(name, value, (True, False, None))),
    "on_kill": lambda name, value: check_choice(name, value, ON_KILL),
    "max_log_bytes": lambda name, value: None if value is None else check_number(name, value),
    "log_drain": lambda name, value: None if value is None else check_seconds(name, value, zero=True),
}
