"""``remsvc service``: the server as a Windows service. On Windows only."""

from __future__ import annotations

import sys

# ruff: noqa: E402
# Above the imports: elsewhere, type checkers then skip the rest.
assert sys.platform == "win32"

from collections.abc import Callable
from pathlib import Path

import click

from remsvc.cli.extras import needs_extra
from remsvc.cli.terminal import warning_line

_NAME = click.option("--name", default="remsvc", show_default=True, help="The service's name.")


@click.group()
def service() -> None:
    """Run the server as a Windows service.

    \b
    Examples (in a terminal with administrator's rights):
      remsvc service install --config C:\\ProgramData\\remsvc\\server.ini
      sc start remsvc
      sc query remsvc
      sc stop remsvc
      remsvc service remove
    """


@service.command()
@click.option("--config", required=True, type=click.Path(path_type=Path), help="The server's configuration.")
@_NAME
@click.option(
    "--account",
    help="The account that the server and its commands run as, such as LocalSystem.  "
    "[default: NT SERVICE\\NAME, a virtual account without rights of its own]",
)
def install(config: Path, name: str, account: str | None) -> None:
    """Create the service; it starts with the system. The configuration is checked first."""
    with needs_extra("server"):
        from remsvc.server import windows_service
        from remsvc.server.config import load_config
    settings = load_config(config, {})
    for warning in settings.warnings:
        warning_line(warning)
    if settings.log_file is None:
        warning_line("[log] file is not set: a service has no standard error, so its log is lost")
    account = account or rf"NT SERVICE\{name}"
    config = config.resolve()
    windows_service.install(name, config, account)
    click.echo(f"installed the service {name}, which runs as {account}")
    click.echo(f"see that this account can read {config.parent} (icacls), then: sc start {name}")


@service.command()
@_NAME
def remove(name: str) -> None:
    """Stop and delete the service."""
    with needs_extra("server"):
        from remsvc.server import windows_service
    windows_service.remove(name)
    click.echo(f"removed the service {name}")


@service.command(hidden=True)
@click.option("--config", required=True, type=click.Path(path_type=Path))
@_NAME
def run(config: Path, name: str) -> None:
    """What the service control manager starts."""
    with needs_extra("server"):
        from remsvc.server import windows_service
        from remsvc.server.app import serve
        from remsvc.server.config import load_config

    def serve_until_stopped(on_listening: Callable[[str], None]) -> int:
        return serve(load_config(config, {}), on_listening)

    sys.exit(windows_service.run(name, serve_until_stopped))
