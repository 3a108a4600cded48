"""What makes a verb that talks to a server: its options, and the function that does the work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from remsvc.cli import parameters
from remsvc.cli.connection import CONNECTION, check_connection, connection
from remsvc.cli.options import Argument, Option


class Verb(NamedTuple):
    """A verb that talks to a server.

    Attributes:
        name: how it is written.
        function: does the work. It gets ``ConnectionOptions``, and the value of each option and of the
        argument
            by its name.
        options: its options, in the order of the help.
        argument: the words after it; None where it takes none.
    """

    name: str
    function: Callable[..., None]
    options: tuple[Option, ...]
    argument: Argument | None

    @property
    def options_first(self) -> bool:
        """Whether all words after the argument's first belong to it, even what looks like an option."""
        return self.argument is not None and self.argument.many

    def check(self, values: Mapping[str, Any], given: Collection[str]) -> None:
        """Check values that may contradict each other; see :func:`check_connection`."""
        check_connection(values, given)

    def run(self, values: Mapping[str, Any]) -> None:
        """Do the work, with checked values."""
        others = {name: parameters.typed(value) for name, value in values.items()}
        options = connection(**{option.name: others.pop(option.name) for option in CONNECTION})
        self.function(options, **others)


def verb(
    *options: Option, argument: Argument | None = None, name: str | None = None
) -> Callable[[Callable[..., None]], Verb]:
    """A decorator that makes a function a verb. The options of a connection come before its own."""

    def make(function: Callable[..., None]) -> Verb:
        return Verb(name or function.__name__, function, (*CONNECTION, *options), argument)

    return make
