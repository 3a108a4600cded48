"""``remsvc run``: run a command on a server as if it were here."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from remsvc.cli import parameters
from remsvc.cli.connection import connection_options, open_client
from remsvc.cli.shell_text import SHELLS, command_text
from remsvc.cli.terminal import escape_controls, print_json, progress, warning_line
from remsvc.command import Command, CommandType
from remsvc.errors import InvalidCommandError

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions

_NEEDS_JOBS = "needs durable jobs, which protocol version 1 does not have: this version of remsvc refuses it"


@click.command(context_settings={"allow_interspersed_args": False})
@connection_options
@click.option("--user", default="", metavar="NAME", help="Run as this user (POSIX servers).")
@click.option(
    "--shell",
    type=click.Choice(SHELLS),
    default="sh",
    show_default=True,
    help="What interprets COMMAND: the system's shell, PowerShell, or nothing: then it is a program and its "
    "arguments, taken exactly as they are (POSIX servers).",
)
@click.option(
    "--timeout",
    type=parameters.seconds,
    metavar="SECONDS",
    help="End the command after this time. The server's own limit (30 s unless configured) still holds.",
)
@click.option("--cwd", metavar="DIRECTORY", help="Run there (POSIX servers). No ~ or $VAR.")
@click.option(
    "--env",
    type=parameters.assignment,
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a variable (POSIX servers). Repeatable.",
)
@click.option(
    "--request-id", metavar="ID", help="Run at most once under this id. Not possible yet: " + _NEEDS_JOBS
)
@click.option("--detach", is_flag=True, help="Do not wait. Not possible yet: needs durable jobs, as above.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def run(
    options: ConnectionOptions,
    user: str,
    shell: str,
    timeout: float | None,
    cwd: str | None,
    env: tuple[tuple[str, str], ...],
    request_id: str | None,
    detach: bool,
    as_json: bool,
    words: tuple[str, ...],
) -> None:
    """Run COMMAND on a server, print its output, and exit with its exit code.

    The words of COMMAND are joined with blanks and interpreted by the shell over there, as with
    ssh: quote what the shell here should leave alone. The output comes when the command has ended.
    Ctrl-C ends the command and exits 130. Exit code 255 with a line on standard error: remsvc
    itself failed.

    --cwd and --env put "cd" and "export" in front of the command's text, which is what the server's
    allow and deny patterns see.

    \b
    Examples:
      remsvc run -s build7:50051 -- uname -a
      remsvc run --ca-cert ca.pem --token-file token -- 'df -h | tail -n +2'
      remsvc run --user deploy --cwd /srv/app --env MODE=fast -- ./update.sh
      remsvc run --shell none -- printf '%s\\n' 'one argument' '$HOME as it is'
      remsvc run --shell pwsh -- Get-Date
      remsvc run --json -- hostname | jq -r .out
    """
    if request_id is not None or detach:
        raise InvalidCommandError(f"{'--detach' if detach else '--request-id'} {_NEEDS_JOBS}")
    command = Command(
        command_text(words, shell, cwd, env),
        CommandType.POWERSHELL if shell == "pwsh" else CommandType.SHELL,
        user,
        _source(),
    )
    command.validate()
    started = time.monotonic()
    with open_client(options) as client, progress(f"running on {options.target}"):
        result = client.run(command, timeout=timeout)
    if as_json:
        print_json(
            {
                "rc": result.rc,
                "out": result.out,
                "err": result.err,
                "lossy": result.lossy,
                "command": command.cmd,
                "server": options.target,
                "seconds": round(time.monotonic() - started, 3),
            }
        )
    else:
        _write(sys.stdout, result.out)
        _write(sys.stderr, result.err)
    if result.lossy:
        warning_line("the server sent bytes that are not UTF-8; they are shown as U+FFFD")
    _exit(result.rc)


def _source() -> str:
    """Who runs this, for the server's log."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "?"
    return escape_controls(f"remsvc run by {user}@{socket.gethostname()}")


def _write(stream: object, text: str) -> None:
    """Exactly these characters as UTF-8, whatever the locale, without translated line ends."""
    buffer = getattr(stream, "buffer")  # noqa: B009
    buffer.write(text.encode("utf-8"))
    buffer.flush()


def _exit(rc: int) -> NoReturn:
    if os.name != "nt" and not 0 <= rc <= 255:
        # An exit code of Windows: the low byte alone could say 0.
        warning_line(f"the command's exit code is {rc}, which does not fit here: exiting with 255")
        rc = 255
    sys.exit(rc)
