"""``remsvc check-config``: is a server's configuration valid?"""

from __future__ import annotations

from pathlib import Path

import click

from remsvc.cli.extras import needs_extra
from remsvc.cli.terminal import error_line, print_json, warning_line


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print problems and warnings as one JSON object.")
def check_config(file: Path, as_json: bool) -> None:
    """Check a server's configuration without starting it.

    Exits 0 if "remsvc serve --config FILE" would accept it, else 2, with every problem on a line of
    its own. Warnings do not change the exit code.

    \b
    Examples:
      remsvc check-config /etc/remsvc/server.ini
      remsvc check-config --json server.ini | jq -r '.problems[]'
    """
    with needs_extra("server"):
        from remsvc.server.config import check_config as check

        problems, warnings = check(file)
    if as_json:
        print_json({"valid": not problems, "problems": problems, "warnings": warnings})
    else:
        for warning in warnings:
            warning_line(warning)
        for problem in problems:
            error_line(problem)
        if not problems:
            click.echo(f"{file}: valid")
    click.get_current_context().exit(2 if problems else 0)
