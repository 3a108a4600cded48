"""The group of all verbs, and what becomes of their errors."""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from remsvc.cli.audit import audit
from remsvc.cli.check_config import check_config
from remsvc.cli.completion import completion
from remsvc.cli.exit_codes import FAILURE, INTERRUPTED, USAGE
from remsvc.cli.init import init
from remsvc.cli.jobs.group import jobs
from remsvc.cli.ping import ping
from remsvc.cli.policy import policy
from remsvc.cli.run import run
from remsvc.cli.serve import serve
from remsvc.cli.status import status
from remsvc.cli.terminal import error_line
from remsvc.cli.token import token
from remsvc.errors import ConfigurationError, InvalidCommandError, RemSvcError


class CommandLine(click.Group):
    """Verbs in the order they were added; each error of ours becomes one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

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


def _version() -> str:
    try:
        return version("airflow-provider-remsvc")
    except PackageNotFoundError:
        return "unknown"


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="remsvc")
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


for verb in (serve, check_config, ping, status, run, jobs, init, token, policy, audit, completion):
    command_line.add_command(verb)
if sys.platform == "win32":
    from remsvc.cli.service import service

    command_line.add_command(service)


def main() -> None:
    """The console script."""
    command_line.main(prog_name="remsvc")
