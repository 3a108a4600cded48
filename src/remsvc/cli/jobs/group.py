"""The group of the verbs about durable jobs."""

from __future__ import annotations

import click

from remsvc.cli.jobs.cancel import cancel
from remsvc.cli.jobs.list import list_jobs
from remsvc.cli.jobs.logs import logs
from remsvc.cli.jobs.show import show
from remsvc.cli.jobs.wait import wait


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
def jobs() -> None:
    """Find, watch and cancel durable jobs: what "remsvc run" has started, and others.

    You see your own jobs: those that were created with the same token.

    \b
    Examples:
      remsvc jobs list --state RUNNING
      remsvc jobs logs -f 5f3a9c0d1e
      remsvc jobs wait 5f3a9c0d1e && echo done
      remsvc jobs cancel 5f3a9c0d1e --reason "wrong host"
    """


for verb in (list_jobs, show, wait, cancel, logs):
    jobs.add_command(verb)
