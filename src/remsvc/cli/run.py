"""``remsvc run``: run a command on a server as if it were here."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from typing import TYPE_CHECKING

from remsvc.cli import parameters
from remsvc.cli.connection import open_client
from remsvc.cli.job_output import binary
from remsvc.cli.options import Argument, Choice, Option, WholeNumber, switch
from remsvc.cli.run_command import run_command
from remsvc.cli.run_job import detach_job, run_job
from remsvc.cli.shell_text import SHELLS, command_text
from remsvc.cli.verb import verb
from remsvc.client.jobs import MAX_STANDARD_INPUT, MOST_OUTPUT, JobSpec, check_request_id
from remsvc.command import Command, CommandType
from remsvc.errors import InvalidCommandError, RemSvcError, UnimplementedError
from remsvc.printable import printable

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions


@verb(
    Option("user", ("--user",), default="", metavar="NAME", help="Run as this user (POSIX servers)."),
    Option(
        "shell",
        ("--shell",),
        kind=Choice(SHELLS),
        default="sh",
        help="What interprets COMMAND: the system's shell, PowerShell, or nothing: then it is a program and "
        "its arguments, taken exactly as they are (POSIX servers).",
    ),
    Option(
        "timeout",
        ("--timeout",),
        kind=parameters.seconds,
        metavar="SECONDS",
        help="End the command after this time. Else the server's limit holds, if it has one.",
    ),
    Option("cwd", ("--cwd",), metavar="DIRECTORY", help="Run there: an absolute path. No ~ or $VAR."),
    Option(
        "env",
        ("--env",),
        kind=parameters.assignment,
        metavar="KEY=VALUE",
        multiple=True,
        help="Set a variable. Repeatable.",
    ),
    switch("stdin", "-i", "--stdin", help="Pass standard input on, up to 1 MiB; else it is empty."),
    Option(
        "request_id",
        ("--request-id",),
        metavar="ID",
        help="Run at most once: if this id has created a job before, show that one, whatever became of it.",
    ),
    Option(
        "labels",
        ("--label",),
        kind=parameters.label,
        metavar="KEY=VALUE",
        multiple=True,
        help='Mark the job, for "remsvc jobs list --label". Repeatable.',
    ),
    Option(
        "output_limit",
        ("--output-limit",),
        kind=WholeNumber(1),
        metavar="BYTES",
        help="Have the server keep so much of each output; of more than that it drops the middle. Else as "
        "much as it allows: 1 GiB unless configured.",
    ),
    switch("detach", "--detach", help="Print the job's id and leave it running."),
    switch("as_json", "--json", help="Print one JSON object: the result; with --detach, the job."),
    argument=Argument("words", metavar="-- COMMAND...", many=True),
)
def run(
    options: ConnectionOptions,
    user: str,
    shell: str,
    timeout: float | None,
    cwd: str | None,
    env: tuple[tuple[str, str], ...],
    stdin: bool,
    request_id: str | None,
    labels: tuple[tuple[str, str], ...],
    output_limit: int | None,
    detach: bool,
    as_json: bool,
    words: tuple[str, ...],
) -> None:
    """Run COMMAND on a server, show its output as it appears, and exit with its exit code.

    The words of COMMAND are joined with blanks and interpreted by the shell over there, as with
    ssh: quote what the shell here should leave alone.

    The command is a durable job: it survives a lost connection and a restart of the server, and
    its output goes on where it was. Ctrl-C (or TERM, HUP) cancels it and shows how it ends; a
    second Ctrl-C kills it, a third one leaves it running. "remsvc jobs" knows it from now on.

    \b
    Exit codes, besides the command's own (128+N when signal N ended it);
    each but 141 comes with a line on standard error:
      1    the command could not be started
      124  its time limit ended it
      130  it was cancelled
      141  nobody reads the output here any more: the job is cancelled
      255  what became of it is not known, or remsvc itself failed

    A server that has protocol version 1 alone runs it too, for 30 s unless configured otherwise:
    the output comes at the end, --cwd and --env become "cd" and "export" in front of COMMAND, and
    --stdin, --request-id, --label, --output-limit and --detach are refused.

    \b
    Examples:
      remsvc run -s build7:50051 -- uname -a
      remsvc run --ca-cert ca.pem --token-file token -- 'df -h | tail -n +2'
      remsvc run --user deploy --cwd /srv/app --env MODE=fast -- ./update.sh
      remsvc run --shell none -- printf '%s\\n' 'one argument' '$HOME as it is'
      remsvc run --shell pwsh -- Get-Date
      remsvc run --request-id nightly-2030-01-31 -- ./backup.sh
      remsvc run --stdin -- tar -xzf - < files.tgz
      job=$(remsvc run --detach -- make all) && remsvc jobs logs -f $job
      remsvc run --json -- hostname | jq -r .out
    """
    _check_directory(cwd)
    if request_id is not None:
        check_request_id(request_id)
    spec = JobSpec(
        shell_command=" ".join(words) if shell != "none" else None,
        argv=words if shell == "none" else None,
        shell_type="powershell" if shell == "pwsh" else "native",
        user=user,
        working_directory=cwd or "",
        environment=dict(env),
        standard_input=_standard_input() if stdin else b"",
        time_limit=timeout,
        # Whoever watches should miss nothing, even if the command is faster.
        output_limit=output_limit or MOST_OUTPUT,
        labels=dict(labels),
        # It is a part of the content that a request id stands for, so it must be the same from every
        # machine.
        source=_source() if request_id is None else "remsvc run",
    )
    spec.validate()
    try:
        with open_client(options.for_jobs()) as client:
            create_as = request_id or os.urandom(16).hex()
            if detach:
                detach_job(client, spec, create_as, as_json=as_json)
            else:
                run_job(client, spec, create_as, server=options.target, as_json=as_json)
        return
    except UnimplementedError:
        refused = {
            "--detach": detach,
            "--request-id": request_id,
            "--stdin": stdin,
            "--label": labels,
            "--output-limit": output_limit,
        }
        if needing := [name for name, given in refused.items() if given]:
            raise RemSvcError(
                f"{needing[0]} needs durable jobs, which {options.target} does not have: "
                "it speaks protocol version 1 alone"
            ) from None
    command = Command(
        command_text(words, shell, cwd, env),
        CommandType.POWERSHELL if shell == "pwsh" else CommandType.SHELL,
        user,
        _source(),
    )
    run_command(options, command, timeout=timeout, as_json=as_json)


def _check_directory(cwd: str | None) -> None:
    if cwd is not None and not cwd.startswith("/") and cwd[1:3] not in (":\\", ":/"):
        raise InvalidCommandError(f"--cwd must be an absolute path, not {cwd!r}")


def _standard_input() -> bytes:
    data = binary(sys.stdin).read(MAX_STANDARD_INPUT + 1)
    if len(data) > MAX_STANDARD_INPUT:
        raise InvalidCommandError(f"--stdin passes on at most {MAX_STANDARD_INPUT} bytes, and there are more")
    return data


def _source() -> str:
    """Who runs this command, for the server's log."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "?"
    return printable(f"remsvc run by {user}@{socket.gethostname()}")
