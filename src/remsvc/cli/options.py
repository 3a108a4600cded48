"""Options and arguments of verbs as a table, and the kinds of values they take.

From this table the quick parser (:mod:`remsvc.cli.quick`) and click's commands
(:mod:`remsvc.cli.click_verb`) are made, so that they cannot differ. Nothing here imports click.

A kind turns the text of a value into the value, or raises ``ValueError`` with what is to be said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

Kind = Callable[[Any], Any]


class Choice:
    """One of a few words."""

    def __init__(self, words: Collection[str], *, any_case: bool = False) -> None:
        self.words = tuple(words)
        self.any_case = any_case

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(f"{text!r} is not one of {', '.join(self.words)}")
        return text


class WholeNumber:
    """An integer, from ``least`` on."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        number = int(text)
        if number < self.least:
            raise ValueError(f"{number} is less than {self.least}")
        return number


def file(text: str) -> Path:
    """The path of a file, which may be missing."""
    from pathlib import Path  # slow to load

    path = Path(text)
    if path.exists() and not os.access(path, os.R_OK):
        raise ValueError(f"{text!r} is not readable")
    return path


class Option(NamedTuple):
    """One option of a verb.

    Attributes:
        name: of the function's parameter.
        flags: as written, such as ``-c`` and ``--count``.
        help: what it is for.
        kind: of its value.
        metavar: what stands for its value in the help; None: the kind says.
        default: without the option; not shown where it is None or a flag's.
        multiple: whether it may be given again; the value is a tuple then.
        variable: of the environment, whose text holds where the option is not given.
        switch: whether it takes no value: True where it is given.
        off: the flag that makes a switch False; without it and ``flags`` the value is ``default``.
    """

    name: str
    flags: tuple[str, ...]
    help: str
    kind: Kind = str
    metavar: str | None = None
    default: Any = None
    multiple: bool = False
    variable: str | None = None
    switch: bool = False
    off: str | None = None


class Argument(NamedTuple):
    """The words of a verb that are no options: exactly one, or with ``many`` one and more, as a tuple."""

    name: str
    metavar: str
    many: bool = False

    def value(self, words: Sequence[str]) -> str | tuple[str, ...]:
        """What the function gets. Raises ``ValueError`` where there are too many or too few."""
        if not words or (len(words) > 1 and not self.many):
            raise ValueError(f"expected {self.metavar}")
        return tuple(words) if self.many else words[0]


def switch(name: str, *flags: str, help: str) -> Option:  # noqa: A002
    """An option without a value: True where it is given, else False."""
    return Option(name, flags, help, default=False, switch=True)
