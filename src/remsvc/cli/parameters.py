"""Checks and converts the values that several verbs take: servers, times, variables, labels.

They are kinds of values, as :mod:`remsvc.cli.options` explains.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from remsvc.client.target import parse_target
from remsvc.errors import ConfigurationError

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def typed(value: Any) -> Any:
    """A text as it was typed, even in a locale that knows only ASCII; other values unchanged."""
    if isinstance(value, tuple):
        return tuple(map(typed, value))
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        return value.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return value  # not UTF-8: whoever uses it will say so


def server(value: str) -> str:
    """``HOST:PORT``."""
    try:
        return str(parse_target(value))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


def seconds(value: str | float) -> float:
    """A time in seconds above 0."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1e9:
        raise ValueError(f"{value!r} is not a number of seconds above 0")
    return number


def assignment(value: str) -> tuple[str, str]:
    """``KEY=VALUE`` for an environment variable."""
    key, separator, text = value.partition("=")
    if not separator:
        raise ValueError(f"{value!r} is not KEY=VALUE")
    if not _VARIABLE.fullmatch(key):
        raise ValueError(f"{key!r} is not the name of a variable: letters, digits and '_'")
    return key, text


def label(value: str) -> tuple[str, str]:
    """``KEY=VALUE`` for a label of a job."""
    key, separator, text = value.partition("=")
    if not separator or not key:
        raise ValueError(f"{value!r} is not KEY=VALUE")
    return key, text


def moment(value: str) -> datetime:
    """A time in the past: how long ago (``90s``, ``30m``, ``12h``, ``7d``, ``2w``), or ISO 8601."""
    try:
        if ago := _AGO.fullmatch(value):
            return datetime.now(timezone.utc) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        return datetime.fromisoformat(value.removesuffix("Z") + "+00:00" * value.endswith("Z")).astimezone()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{value!r} is not a time: 90s, 30m, 12h or 7d ago, or such as 2030-01-31T12:00"
        ) from None
