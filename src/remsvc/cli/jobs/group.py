"""The group of the verbs about durable jobs."""

from __future__ import annotations

import click

from remsvc.cli.click_verb import Verbs
from remsvc.cli.verbs import JOB_VERBS


class JobVerbs(Verbs):
    """The verbs about jobs."""

    places = JOB_VERBS


@click.group(cls=JobVerbs)
def jobs() -> None:
    """Find, watch and cancel durable jobs: what "remsvc run" has started, and others.

    You see your own jobs: those that were created by the same identity.

    \b
    Examples:
      remsvc jobs list --state RUNNING
      remsvc jobs logs -f 5f3a9c0d1e
      remsvc jobs wait 5f3a9c0d1e && echo done
      remsvc jobs cancel 5f3a9c0d1e --reason "wrong host"
    """
