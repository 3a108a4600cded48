"""``remsvc serve``: run the server."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from remsvc.errors import ConfigurationError, RemSvcError


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file (INI).")
@click.option("--port", type=int, help="Port; 0 takes any free one. Default 50051.")
@click.option("--host", help="Address to listen on.")
@click.option("--tls", is_flag=True, default=None, help="Encrypt; needs --cert and --key.")
@click.option("--cert", help="PEM file of the server's certificate.")
@click.option("--key", help="PEM file of its private key.")
@click.option("--ca-cert", help="PEM file: clients must present a certificate it signed (mutual TLS).")
@click.option("--cmd-timeout-ms", type=int, help="Time limit of each command, in milliseconds.")
@click.option("--state-dir", help="Where durable state goes.")
@click.option("--deny", multiple=True, help="Pattern of commands to refuse; repeat for more.")
@click.option("--allow", multiple=True, help="Pattern of commands to permit; repeat for more.")
@click.option("--log-level", help="debug, info, warning, error.")
@click.option("--log-file", help="File for the log, rotated.")
def serve(config: Path | None, **overrides: object) -> None:
    """Run the server until SIGTERM."""
    try:
        from remsvc.server.app import serve as run
        from remsvc.server.config import load_config
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("remsvc"):
            raise
        click.echo(f"remsvc: the server needs {error.name}: pip install 'airflow-provider-remsvc[server]'", err=True)
        sys.exit(255)
    try:
        sys.exit(run(load_config(config, overrides)))
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except RemSvcError as error:
        click.echo(f"remsvc: {error}", err=True)
        sys.exit(255)
