"""``remsvc jobs show``: all about one job."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from remsvc.cli.job_description import as_json as job_as_json
from remsvc.cli.jobs.client import job_client
from remsvc.cli.options import Argument, switch
from remsvc.cli.terminal import print_json, print_line
from remsvc.cli.verb import verb
from remsvc.printable import printable

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions

_LONGEST_VALUE = 64 * 1024
"""Characters. Whoever asks for everything about a job wants its whole command, but no endless screen."""


@verb(
    switch("as_json", "--json", help="Print one JSON object."),
    argument=Argument("job_id", metavar="ID"),
)
def show(options: ConnectionOptions, as_json: bool, job_id: str) -> None:
    """Show all about a job: what it runs, how it fares, how much it has printed.

    Where standard output is no terminal, each line is a name, a tab and a value.

    \b
    Examples:
      remsvc jobs show 5f3a9c0d1e
      remsvc jobs show 5f3a9c0d1e --json | jq .rc
    """
    with job_client(options) as client:
        job = client.get_job(job_id)
    fields = job_as_json(job)
    if as_json:
        print_json(fields)
        return
    separate = f"{{:<{max(map(len, fields)) + 2}}}{{}}" if sys.stdout.isatty() else "{}\t{}"
    for name, value in fields.items():
        if value not in (None, "", {}):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print_line(separate.format(name, printable(text, limit=_LONGEST_VALUE)))
