"""The command line with click: the group of all verbs, and its help."""

from __future__ import annotations

from typing import Any

import click

from remsvc.cli.click_verb import Verbs
from remsvc.cli.outcome import errors_told
from remsvc.cli.verbs import VERBS


class CommandLine(Verbs):
    """The group of all verbs. Each error of ours becomes one line and an exit code."""

    places = VERBS

    def invoke(self, ctx: click.Context) -> Any:
        with errors_told(click.exceptions.Exit, click.ClickException, click.Abort):
            return super().invoke(ctx)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version  # slow to load

    try:
        number = version("airflow-provider-remsvc")
    except PackageNotFoundError:
        number = "unknown"
    click.echo(f"remsvc, version {number}")
    ctx.exit()


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def command_line() -> None:
    """Run commands on any host through a RemSvc server.

    \b
    Examples:
      remsvc init ./remsvc                          certificates, a token and server.ini
      remsvc serve --config ./remsvc/server.ini     start the server
      remsvc run -s build7 --tls -- uname -a        run a command there
      remsvc jobs list -s build7 --tls              what has run there

    Exit codes: that of the command for "run"; 2 for wrong usage or configuration; 255 when
    remsvc itself failed, with one line on standard error.
    """


def main() -> None:
    """The console script."""
    with errors_told():
        command_line.main(prog_name="remsvc")
