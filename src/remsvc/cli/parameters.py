"""Checked values of options that several verbs have; each is used as a click type."""

from __future__ import annotations

import math
import re

import click

from remsvc.client.target import parse_target
from remsvc.errors import ConfigurationError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def server(value: str) -> str:
    """``HOST:PORT``."""
    try:
        return str(parse_target(value))
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from None


def seconds(value: str | float) -> float:
    """A time in seconds above 0."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1e9:
        raise click.BadParameter(f"{value!r} is not a number of seconds above 0")
    return number


def assignment(value: str) -> tuple[str, str]:
    """``KEY=VALUE`` for an environment variable."""
    key, separator, text = value.partition("=")
    if not separator:
        raise click.BadParameter(f"{value!r} is not KEY=VALUE")
    if not _VARIABLE.fullmatch(key):
        raise click.BadParameter(f"{key!r} is not the name of a variable: letters, digits and '_'")
    return key, text
