"""A verb that talks to a server: its options as a table, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from remsvc.cli import parameters
from remsvc.cli.connection import CONNECTION, check_connection, connection
from remsvc.cli.options import Argument, Option


class Verb(NamedTuple):
    """A verb.

    Attributes:
        name: as written.
        function: does it: gets ``ConnectionOptions``, and the value of each option and argument by its name.
        options: in the order of the help.
        argument: None where it takes none.
    """

    name: str
    function: Callable[..., None]
    options: tuple[Option, ...]
    argument: Argument | None

    @property
    def options_first(self) -> bool:
        """Whether all that follows the first word of the argument belongs to it, options too."""
        return self.argument is not None and self.argument.many

    def check(self, values: Mapping[str, Any], given: Collection[str]) -> None:
        """Raises ``ValueError`` where values contradict each other; ``given``: on the command line."""
        check_connection(values, given)

    def run(self, values: Mapping[str, Any]) -> None:
        """Do it with checked values."""
        others = {name: parameters.typed(value) for name, value in values.items()}
        options = connection(**{option.name: others.pop(option.name) for option in CONNECTION})
        self.function(options, **others)


def verb(
    *options: Option, argument: Argument | None = None, name: str | None = None
) -> Callable[[Callable[..., None]], Verb]:
    """Make a function a verb, with the options of a connection before its own."""

    def make(function: Callable[..., None]) -> Verb:
        return Verb(name or function.__name__, function, (*CONNECTION, *options), argument)

    return make
