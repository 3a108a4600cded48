"""``remsvc jobs cancel``: end a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remsvc.cli.job_description import as_json as job_as_json
from remsvc.cli.jobs.client import job_client
from remsvc.cli.options import Argument, Option, switch
from remsvc.cli.terminal import print_json, print_line
from remsvc.cli.verb import verb
from remsvc.printable import printable

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions


@verb(
    switch("kill", "--kill", help="KILL at once; else TERM, and KILL after the job's grace period."),
    Option("reason", ("--reason",), default="", metavar="TEXT", help="Why, for whoever looks at the job."),
    switch("as_json", "--json", help="Print the job as one JSON object."),
    argument=Argument("job_id", metavar="ID"),
)
def cancel(options: ConnectionOptions, kill: bool, reason: str, as_json: bool, job_id: str) -> None:
    """End a job and everything that it has started.

    Does not wait for its end: "remsvc jobs wait ID" does. A job that has ended already stays as it
    is, which is no error.

    \b
    Examples:
      remsvc jobs cancel 5f3a9c0d1e --reason "wrong host"
      remsvc jobs cancel --kill 5f3a9c0d1e && remsvc jobs wait 5f3a9c0d1e
    """
    with job_client(options) as client:
        job = client.cancel_job(job_id, reason=reason, kill=kill)
    if as_json:
        print_json(job_as_json(job))
    elif job.ended:
        print_line(f"job {printable(job.id)} has ended: {job.state}")
    else:
        print_line(f"job {printable(job.id)} is being {'killed' if kill else 'cancelled'}")
