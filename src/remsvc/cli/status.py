"""``remsvc status``: the state of a server."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from remsvc.cli import parameters
from remsvc.cli.connection import open_client
from remsvc.cli.options import Option, switch
from remsvc.cli.terminal import print_json, print_line
from remsvc.cli.verb import verb
from remsvc.printable import printable

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions


@verb(
    Option(
        "timeout",
        ("--timeout",),
        kind=parameters.seconds,
        metavar="SECONDS",
        default=10.0,
        help="Give up after this time.",
    ),
    switch("as_json", "--json", help="Print one JSON object."),
)
def status(options: ConnectionOptions, timeout: float, as_json: bool) -> None:
    """Ask a server for its state.

    Exits 0 if the server says that it is well, 1 if it reports a problem.

    \b
    Examples:
      remsvc status -s build7:50051 --ca-cert ca.pem --token-file token
      remsvc status --json | jq .commands
    """
    with open_client(options) as client:
        answer = client.status(timeout=timeout)
    beside = {"transport": answer.transport, "process_trees": answer.process_trees}
    told = {name: value for name, value in beside.items() if value}
    if as_json:
        fields = _fields(answer.msg)
        print_json({"server": options.target, "rc": answer.rc, "msg": answer.msg, **fields, **told})
    else:
        print_line(" ".join([printable(answer.msg), *(f"{name}={value}" for name, value in told.items())]))
    sys.exit(0 if answer.rc == 0 else 1)


def _fields(message: str) -> dict[str, object]:
    """The parts of ``state=OK uptime=12s commands=3``; nothing where a server words it differently."""
    match = re.fullmatch(r"state=(\S+) uptime=([0-9]{1,18})s commands=([0-9]{1,18})", message)
    if match is None:
        return {}
    return {"state": match[1], "uptime_seconds": int(match[2]), "commands": int(match[3])}
