"""``remsvc run`` on a server that has protocol version 1 alone: the output comes at the end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NoReturn

from remsvc.cli.connection import open_client
from remsvc.cli.exit_codes import exit_as_command
from remsvc.cli.job_output import binary
from remsvc.cli.standard_streams import written
from remsvc.cli.terminal import print_json, progress, warning_line
from remsvc.command import Command

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions


def run_command(
    options: ConnectionOptions, command: Command, *, timeout: float | None, as_json: bool
) -> NoReturn:
    """Run a command, print its output and exit with its exit code. Ctrl-C ends it.

    Raises:
        InvalidCommandError: before anything is sent.
        ServerError: no connection, or an error status.
    """
    started = time.monotonic()
    command.validate()
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
        _write("stdout", result.out)
        _write("stderr", result.err)
    if result.lossy:
        warning_line("the server sent bytes that are not UTF-8; they are shown as U+FFFD")
    exit_as_command(result.rc)


def _write(name: str, text: str) -> None:
    """Write a text as UTF-8, whatever the locale says."""
    buffer = binary(getattr(sys, name))
    with written(name):
        buffer.write(text.encode("utf-8"))
        buffer.flush()
