"""How an operator's commands are run: what has no templates, named once for all who pass it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remsvc_provider.version_compat import AirflowException

ON_KILL = ("cancel", "leave")
LONGEST_SECONDS = 315_360_000
"""Of a time limit."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run commands.

    Attributes:
        max_output_bytes: bytes of each output that go into a result.
        skip_on_exit_code: exit codes that do not count as failures: they skip the task.
        parallel: how many commands run side by side.
        durable: take over what an earlier try has left running or has got done.
        on_kill: ``cancel`` the jobs when the task is killed, or ``leave`` them.
        max_log_bytes: bytes of each output that go into the task's log; None: as airflow.cfg says.
        log_drain: seconds for which an ended command waits for its log; None: as airflow.cfg says.
    """

    max_output_bytes: int = 262_144
    skip_on_exit_code: Sequence[int] = field(default_factory=list)
    parallel: int = 1
    durable: bool = False
    on_kill: str = "cancel"
    max_log_bytes: int | None = None
    log_drain: float | None = None

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> RunOptions:
        """The operator's parameters of these names; what is left out has its default.

        Raises:
            AirflowException: one cannot be used; names it, its value and what was expected.
            TypeError: a name is unknown.
        """
        options: dict[str, Any] = dict(given)
        for name, check in _CHECKS.items():
            if name in options:
                options[name] = check(name, options[name])
        return cls(**options)


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


def _check_exit_codes(name: str, codes: object) -> list[int]:
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
    "skip_on_exit_code": _check_exit_codes,
    "parallel": check_number,
    "durable": lambda name, value: bool(check_choice(name, value, (True, False, None))),
    "on_kill": lambda name, value: check_choice(name, value, ON_KILL),
    "max_log_bytes": lambda name, value: None if value is None else check_number(name, value),
    "log_drain": lambda name, value: None if value is None else check_seconds(name, value, zero=True),
}
