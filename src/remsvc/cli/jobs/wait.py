"""``remsvc jobs wait``: until a job has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remsvc.cli import parameters
from remsvc.cli.exit_codes import exit_as_command, job_end_line, job_exit_code
from remsvc.cli.job_description import as_json as job_as_json
from remsvc.cli.job_output import ConnectionNotice, tell_dropped
from remsvc.cli.jobs.client import job_client
from remsvc.cli.options import Argument, Option, switch
from remsvc.cli.terminal import error_line, print_json, progress
from remsvc.cli.verb import verb
from remsvc.client.jobs import StateChange

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions


@verb(
    Option(
        "timeout",
        ("--timeout",),
        kind=parameters.seconds,
        metavar="SECONDS",
        help="Give up after this time: exit code 255.",
    ),
    switch("as_json", "--json", help="Print the ended job as one JSON object."),
    argument=Argument("job_id", metavar="ID"),
)
def wait(options: ConnectionOptions, timeout: float | None, as_json: bool, job_id: str) -> None:
    """Wait until a job has ended, and exit as "remsvc run" would have.

    Ctrl-C stops waiting; the job goes on.

    \b
    Exit codes, besides the command's own (128+N when signal N ended it);
    each comes with a line on standard error:
      1    the command could not be started
      124  its time limit ended it
      130  it was cancelled
      255  what became of it is not known, or remsvc itself failed

    \b
    Examples:
      remsvc jobs wait 5f3a9c0d1e && echo "it succeeded"
      remsvc jobs wait 5f3a9c0d1e --timeout 60 --json | jq .state
    """
    with job_client(options) as client, progress(f"waiting for job {job_id} on {options.target}"):
        job = client.get_job(job_id)
        notice = ConnectionNotice(options.target)
        for event in client.watch_job(
            job_id, stdout_offset=-1, stderr_offset=-1, timeout=timeout, on_disconnect=notice.lost
        ):
            notice.back()
            if isinstance(event, StateChange):
                job = event.job
    if as_json:
        print_json(job_as_json(job))
    tell_dropped(job)
    if line := job_end_line(job):
        error_line(line)
    exit_as_command(job_exit_code(job))
