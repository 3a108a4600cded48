"""The group of all verbs, and what becomes of their errors."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import Any

import click

from remsvc.cli.exit_codes import FAILURE, INTERRUPTED, USAGE
from remsvc.cli.terminal import error_line
from remsvc.errors import ConfigurationError, InvalidCommandError, RemSvcError

# In the order of the help. Each is loaded when it is named: no verb waits for what others need.
_VERBS = {
    "serve": "remsvc.cli.serve",
    "check-config": "remsvc.cli.check_config",
    "ping": "remsvc.cli.ping",
    "status": "remsvc.cli.status",
    "run": "remsvc.cli.run",
    "jobs": "remsvc.cli.jobs.group",
    "init": "remsvc.cli.init",
    "token": "remsvc.cli.token",
    "policy": "remsvc.cli.policy",
    "audit": "remsvc.cli.audit",
    "completion": "remsvc.cli.completion",
}
if sys.platform == "win32":
    _VERBS["service"] = "remsvc.cli.service"


class CommandLine(click.Group):
    """All verbs; each error of ours becomes one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        verb: click.Command = getattr(import_module(_VERBS[cmd_name]), cmd_name.replace("-", "_"))
        return verb

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            for problem in error.problems:
                error_line(problem)
            ctx.exit(USAGE)
        except InvalidCommandError as error:
            error_line(str(error))
            ctx.exit(USAGE)
        except RemSvcError as error:
            error_line(str(error))
            ctx.exit(FAILURE)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except OSError as error:
            error_line(str(error))
            ctx.exit(FAILURE)
        except Exception:  # noqa: BLE001 - a defect must not look like the exit code of a command
            traceback.print_exc(file=sys.stderr)
            ctx.exit(FAILURE)


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
    command_line.main(prog_name="remsvc")
