"""The ``remsvc`` command."""

from __future__ import annotations

import click

from remsvc.cli.serve import serve


@click.group()
def main() -> None:
    """Run commands on any host, exactly once, watched live."""


main.add_command(serve)
