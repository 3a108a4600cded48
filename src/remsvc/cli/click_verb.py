"""Makes click's commands from verbs and their options: for help, completion and error messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from remsvc.cli.options import Choice, Option, OptionKind, WholeNumber, file
from remsvc.cli.verb import Verb
from remsvc.cli.verbs import load


class Verbs(click.Group):
    """A group of verbs, each loaded when it is named."""

    places: Mapping[str, str] = {}
    """Where each verb stands, in the order of the help: see :mod:`remsvc.cli.verbs`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.places:
            return None
        found: click.Command | Verb = load(self.places[cmd_name])
        return click_command(found) if isinstance(found, Verb) else found


def click_command(verb: Verb) -> click.Command:
    """click's command that does the same as a verb."""
    parameters: list[click.Parameter] = [click_option(option) for option in verb.options]
    if (argument := verb.argument) is not None:
        parameters.append(
            click.Argument(
                [argument.name],
                metavar=argument.metavar,
                required=True,
                nargs=-1 if argument.many else 1,
                type=click.UNPROCESSED,
            )
        )
    return click.Command(
        verb.name,
        params=parameters,
        callback=_callback(verb),
        help=inspect.getdoc(verb.function),
        context_settings={"allow_interspersed_args": not verb.options_first},
    )


def click_option(option: Option) -> click.Option:
    """click's option with the same meaning."""
    flags = list(option.flags)
    if option.off is not None:
        flags[-1] += f"/{option.off}"
    if option.switch:
        return click.Option([option.name, *flags], is_flag=True, default=option.default, help=option.help)
    default = {} if option.default is None else {"default": option.default}
    return click.Option(
        [option.name, *flags],
        type=click_type(option.kind),
        metavar=option.metavar,
        multiple=option.multiple,
        envvar=option.variable,
        show_envvar=option.variable is not None,
        show_default=bool(option.default),
        help=option.help,
        **default,
    )


def click_type(kind: OptionKind) -> Any:
    """click's type for a kind of value; for the usual kinds click's own, whose help says more."""
    if kind is str:
        return click.STRING
    if kind is file:
        return click.Path(path_type=Path)
    if isinstance(kind, Choice):
        return click.Choice(kind.words, case_sensitive=not kind.any_case)
    if isinstance(kind, WholeNumber):
        return click.IntRange(min=kind.least)
    return _checked(kind)


def _checked(kind: OptionKind) -> OptionKind:
    """The same kind, with errors that click shows word for word."""

    def convert(text: Any) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


def _callback(verb: Verb) -> Callable[..., None]:
    def callback(**values: Any) -> None:
        source = click.get_current_context().get_parameter_source
        given = [name for name in values if source(name) is click.core.ParameterSource.COMMANDLINE]
        try:
            verb.check(values, given)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        verb.run(values)

    return callback
