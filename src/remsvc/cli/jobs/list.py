"""``remsvc jobs list``: which jobs there are."""

from __future__ import annotations

import sys
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from remsvc.cli import parameters
from remsvc.cli.job_description import as_json as job_as_json
from remsvc.cli.job_description import command_of, duration, short_time, time_text
from remsvc.cli.jobs.client import job_client
from remsvc.cli.options import Choice, Option, WholeNumber, switch
from remsvc.cli.terminal import print_json, print_line, warning_line
from remsvc.cli.verb import verb
from remsvc.client.job_protocol import MOST_JOBS
from remsvc.client.jobs import Job, JobState
from remsvc.printable import printable

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions

_STYLES = {
    JobState.QUEUED: "dim",
    JobState.RUNNING: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "yellow",
    JobState.TIMED_OUT: "magenta",
    JobState.LOST: "bold red",
}


@verb(
    Option(
        "states",
        ("--state",),
        kind=Choice([state.value for state in JobState], any_case=True),
        multiple=True,
        help="Only jobs in this state. Repeatable.",
    ),
    Option(
        "labels",
        ("--label",),
        kind=parameters.label,
        metavar="KEY=VALUE",
        multiple=True,
        help="Only jobs that have this label. Repeatable: all of them.",
    ),
    Option(
        "since",
        ("--since",),
        kind=parameters.moment,
        metavar="TIME",
        help="Only jobs created since then: 30m, 12h, 7d, or 2030-01-31T12:00 (local, unless it says).",
    ),
    Option("limit", ("--limit",), kind=WholeNumber(1), default=100, help="At most this many."),
    switch("as_json", "--json", help="Print a JSON array of objects."),
    name="list",
)
def list_jobs(
    options: ConnectionOptions,
    states: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    since: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List your jobs, newest first.

    Where standard output is no terminal, each job is a line of columns separated by tabs: id,
    state, exit code, created, started, ended (UTC), request id, command.

    \b
    Examples:
      remsvc jobs list --state RUNNING --state QUEUED
      remsvc jobs list --label release=7 --since 12h
      remsvc jobs list --json | jq '.[] | select(.rc != 0) | .id'
      remsvc jobs list --state RUNNING | cut -f1 | xargs -n1 remsvc jobs cancel
    """
    with job_client(options) as client:
        found = client.list_jobs(
            states=[JobState(state.upper()) for state in states],
            labels=dict(labels),
            created_after=since,
            page_size=min(limit + 1, 1000),
        )
        jobs = list(islice(found, min(limit, MOST_JOBS) + 1))
    more, jobs = len(jobs) > limit, jobs[:limit]
    if as_json:
        print_json([job_as_json(job) for job in jobs])
    elif sys.stdout.isatty():
        _print_table(jobs)
    else:
        for job in jobs:
            print_line("\t".join(_columns(job)))
    if more:
        warning_line(f"there are more than these {limit}: see --limit")


def _columns(job: Job) -> list[str]:
    columns = [
        job.id,
        job.state.value,
        "" if job.exit_code is None else str(job.exit_code),
        time_text(job.created_at) or "",
        time_text(job.started_at) or "",
        time_text(job.ended_at) or "",
        job.request_id,
        command_of(job),
    ]
    return [printable(column) for column in columns]


def _print_table(jobs: list[Job]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("ID", "STATE", "EXIT", "CREATED", "TOOK"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("EXIT", "TOOK") else "left")
    table.add_column("COMMAND")  # takes what is left
    for job in jobs:
        table.add_row(
            Text(printable(job.id)),
            Text(job.state.value, style=_STYLES[job.state]),
            "" if job.exit_code is None else str(job.exit_code),
            short_time(job.created_at),
            duration(job),
            Text(printable(command_of(job)), no_wrap=True, overflow="ellipsis"),
        )
    Console().print(table)
