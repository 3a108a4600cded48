"""Reads what ``airflow.cfg`` says of the provider, in its section ``[remsvc]``.

Each option is read where it is used: a worker, a triggerer and a DAG processor may have files of their own.
Airflow asks for the list of options while it is still reading its own configuration, so nothing of Airflow is
imported until an option is read.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

SECTION = "remsvc"

T = TypeVar("T", bool, int, float)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One option.

    Attributes:
        name: in the file.
        default: where the file does not name it; the option is of its type.
        meaning: for Airflow's list of options.
        least, most: the smallest and the largest number that it may be.
    """

    name: str
    default: T
    meaning: str
    least: float = 0
    most: float = sys.float_info.max

    def read(self) -> T:
        """What the file says.

        Raises:
            AirflowException: it is nothing of that type, below ``least``, or above ``most``.
        """
        from remsvc_provider.version_compat import AirflowException, conf

        try:
            value = self._value(conf)
        except Exception:  # noqa: BLE001  which one, depends on Airflow's version; its text names no section
            value = None
        if value is None or not (isinstance(value, bool) or self.least <= value <= self.most):
            given = conf.get(SECTION, self.name, fallback="")
            raise AirflowException(
                f"airflow.cfg, [{SECTION}] {self.name} is {given!r}; expected {self._expected}"
            )
        return value

    def read_or(self, otherwise: T) -> T:
        """What the file says, or ``otherwise`` where that cannot be used; a process warns of it once. For
        options that only save time."""
        from remsvc_provider.version_compat import AirflowException

        try:
            return self.read()
        except AirflowException as error:
            _warn_once(f"{error}; {otherwise} is used")
            return otherwise

    def describe(self) -> dict[str, Any]:
        """The option as Airflow's list of a provider's options has it."""
        kind = {bool: "boolean", int: "integer", float: "float"}[type(self.default)]
        return {
            "description": f"{self.meaning}\n",
            "version_added": "1.2.0",
            "type": kind,
            "example": None,
            "default": str(self.default),
        }

    def _value(self, conf: Any) -> T:
        if isinstance(self.default, bool):
            return cast(T, conf.getboolean(SECTION, self.name, fallback=self.default))
        if isinstance(self.default, int):
            return cast(T, conf.getint(SECTION, self.name, fallback=self.default))
        return cast(T, conf.getfloat(SECTION, self.name, fallback=self.default))

    @property
    def _expected(self) -> str:
        if isinstance(self.default, bool):
            return "True or False"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        bounded = self.most < sys.float_info.max
        return f"{kind} from {self.least:g} {f'to {self.most:g}' if bounded else 'on'}"


@lru_cache
def _warn_once(text: str) -> None:
    """Some options are asked for with every task of a DAG file, each time it is read."""
    _log.warning("%s", text)


PROMPT_EXIT = Setting(
    "prompt_exit",
    True,
    "Have Airflow notice at once that a worker's process has ended, on versions that may notice it up to "
    "[workers] min_heartbeat_interval seconds late.",
)
RESUME_AFTER = Setting(
    "resume_after",
    5.0,
    "Seconds after a worker has deferred a task before which the task is not resumed. A command that is over "
    "sooner waits for its result to be taken: Airflow's scheduler may fail a task that is resumed before it "
    "knows that the worker has ended. At most 30.",
    most=30,
)
START_FROM_TRIGGER = Setting(
    "start_from_trigger",
    True,
    "Start tasks in the triggerer, where Airflow can do that (3.3 and later) and the task allows it, instead "
    "of having a worker start them. What RemSvcOperator(start_from_trigger=...) says comes first.",
)
MAX_LOG_BYTES = Setting(
    "max_log_bytes",
    64 * 1024 * 1024,
    "Bytes of each output of a command in the task's log. Of more, the beginning and the end are there. What "
    "RemSvcOperator(max_log_bytes=...) says comes first.",
    least=1,
)
LOG_DRAIN = Setting(
    "log_drain",
    60.0,
    "Seconds for which a command that has ended waits until its task's log has all of its output. What would "
    "take longer is left out, but for the end. What RemSvcOperator(log_drain=...) says comes first.",
)

SETTINGS: tuple[Setting[bool] | Setting[int] | Setting[float], ...] = (
    PROMPT_EXIT,
    RESUME_AFTER,
    START_FROM_TRIGGER,
    MAX_LOG_BYTES,
    LOG_DRAIN,
)

DEFAULT_DEFERRABLE = "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"


def default_deferrable() -> bool:
    """Whether tasks are deferred that do not say so themselves: Airflow's ``[operators] default_deferrable``,
    where somebody has set it.

    The airflow.cfg that Airflow writes says ``False`` without having been asked, so only the environment
    variable counts; without it tasks are deferred, as they always were.

    Raises:
        AirflowConfigException: it is neither true nor false.
    """
    if DEFAULT_DEFERRABLE not in os.environ:
        return True
    from remsvc_provider.version_compat import conf

    return bool(conf.getboolean("operators", "default_deferrable"))
