"""How a verb describes its options and arguments, and the kinds of values that they take.

Both the quick parser (:mod:`remsvc.cli.quick`) and click's commands (:mod:`remsvc.cli.click_verb`) work
from this description, so that they cannot differ. Nothing here imports click.

A kind is a function from the text of a value to the value. It raises ``ValueError`` with a message for the
user.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

OptionKind = Callable[[Any], Any]


class Choice:
    """A kind of value: one of a few words."""

    def __init__(self, words: Collection[str], *, any_case: bool = False) -> None:
        self.words = tuple(words)
        self.any_case = any_case

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(f"{text!r} is not one of {', '.join(self.words)}")
        return text


class WholeNumber:
    """A kind of value: an integer that is at least ``least``."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        number = int(text)
        if number < self.least:
            raise ValueError(f"{number} is less than {self.least}")
        return number


def file(text: str) -> Path:
    """A kind of value: the path of a file, which is readable or does not exist."""
    from pathlib import Path  # slow to load

    path = Path(text)
    if path.exists() and not os.access(path, os.R_OK):
        raise ValueError(f"{text!r} is not readable")
    return path


class Option(NamedTuple):
    """One option of a verb.

    Attributes:
        name: the parameter of the verb's function that gets the value.
        flags: how the option is written, such as ``-c`` and ``--count``.
        help: what it is for.
        kind: checks and converts its value.
        metavar: what stands for its value in the help; None: what the kind says.
        default: the value where the option is not given. The help shows it, unless it is None or a
        switch's.
        multiple: whether the option may be repeated; the value is a tuple then.
        variable: an environment variable that is used where the option is not given.
        switch: whether the option takes no value, and is True where it is given.
        off: the flag that makes a switch False.
    """

    name: str
    flags: tuple[str, ...]
    help: str
    kind: OptionKind = str
    metavar: str | None = None
    default: Any = None
    multiple: bool = False
    variable: str | None = None
    switch: bool = False
    off: str | None = None


class Argument(NamedTuple):
    """The words after a verb that are not options: one, or with ``many`` one or more, as a tuple."""

    name: str
    metavar: str
    many: bool = False

    def value(self, words: Sequence[str]) -> str | tuple[str, ...]:
        """The value for the verb's function. Raises ``ValueError`` for too many words or too few."""
        if not words or (len(words) > 1 and not self.many):
            raise ValueError(f"expected {self.metavar}")
        return tuple(words) if self.many else words[0]


def switch(name: str, *flags: str, help: str) -> Option:  # noqa: A002
    """An option without a value: True where it is given, else False."""
    return Option(name, flags, help, default=False, switch=True)
