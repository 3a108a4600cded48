"""``remsvc init``: everything that a protected server and its clients need, in one directory."""

from __future__ import annotations

import ipaddress
import re
import shlex
from pathlib import Path

import click

from remsvc.cli.server_files import IDENTITY, FilePlan, add_clients, create_all
from remsvc.cli.terminal import print_json
from remsvc.client.target import DEFAULT_PORT, parse_target
from remsvc.errors import ConfigurationError

_CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name or address under which clients reach the server; the first one goes into the connection. "
    "Repeatable. Without it the server listens on this machine only.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=825,
    show_default=True,
    help="How long the server's and clients' certificates are valid. The authority: ten years.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="NAME",
    help="Also issue a client certificate. Repeatable. In a directory that init made before, "
    "only this is done.",
)
@click.option("--mutual-tls", is_flag=True, help="Have the server require client certificates.")
@click.option("--force", is_flag=True, help="Replace files that exist, the authority and the token included.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(
    directory: Path,
    hosts: tuple[str, ...],
    port: int,
    days: int,
    clients: tuple[str, ...],
    mutual_tls: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make a certificate authority, a server certificate, a token and server.ini in DIR.

    Also prints the Airflow connection that reaches the server, token included: treat it as a
    secret. Files with secrets are readable by their owner only.

    \b
    Examples:
      remsvc init ./remsvc
      remsvc init /etc/remsvc --host build7.example.com --host 10.1.2.3
      remsvc init ./remsvc --mutual-tls --client airflow
      remsvc init ./remsvc --client laptop          one more client, later
    """
    for name in clients:
        if not _CLIENT_NAME.fullmatch(name):
            raise click.BadParameter(f"{name!r}: letters, digits, '.', '_' and '-'", param_hint="--client")
    plan = FilePlan(
        directory=_usable(directory.absolute()),
        hosts=tuple(map(_host, hosts)),
        port=port,
        days=days,
        clients=clients or ((IDENTITY,) if mutual_tls else ()),
        mutual_tls=mutual_tls,
    )
    adding = bool(clients) and not (hosts or mutual_tls or force) and (directory / "ca.key").exists()
    report = add_clients(plan) if adding else create_all(plan, force=force)
    if as_json:
        print_json(report)
    elif adding:
        click.echo("\n".join(_added(plan)))
    else:
        click.echo("\n".join(_created(plan, str(report["connection_uri"]))))


def _created(plan: FilePlan, uri: str) -> list[str]:
    options = f"-s {plan.target} --ca-cert {shlex.quote(plan.path('ca.pem'))}"
    options += f" --token-file {shlex.quote(plan.path('token'))}"
    if plan.mutual_tls:
        options += f" --cert {shlex.quote(plan.path(f'client-{plan.clients[0]}.pem'))}"
        options += f" --key {shlex.quote(plan.path(f'client-{plan.clients[0]}.key'))}"
    lines = [
        f"Made in {plan.directory}:",
        "  ca.pem                   certificate authority; clients trust it",
        "  ca.key                   its private key; keep it safe",
        "  server.pem, server.key   the server's certificate and private key",
        f"  token                    the bearer token of identity {IDENTITY!r}",
        "  server.ini               the server's configuration",
    ]
    lines += [f"  client-{name}.pem, .key   client certificate and private key" for name in plan.clients]
    lines += [
        "",
        "Start the server:",
        f"  remsvc serve --config {shlex.quote(plan.path('server.ini'))}",
        "Try it:",
        f"  remsvc ping {options}",
        "",
        "Airflow connection (it holds the token: treat it as a secret):",
        f"  {uri}",
        "As an environment variable, for the connection id remsvc_default:",
        f"  export AIRFLOW_CONN_REMSVC_DEFAULT={shlex.quote(uri)}",
    ]
    return lines


def _added(plan: FilePlan) -> list[str]:
    return [
        f"Made in {plan.directory}:",
        *(f"  client-{name}.pem, .key   client certificate and private key" for name in plan.clients),
        "To have the server require client certificates, set in server.ini:",
        "  [tls]",
        f"  ca = {plan.path('ca.pem')}",
    ]


def _usable(directory: Path) -> Path:
    text = str(directory)
    if any(character in text for character in "$;\n\r") or not text.isprintable():
        raise ConfigurationError([f"DIR {text!r}: server.ini cannot hold '$', ';' or controls"])
    return directory


def _host(text: str) -> str:
    """A host as given with ``--host``, without a port."""
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    if ":" in text:
        raise ConfigurationError([f"--host {text!r}: expected a name or an address, without a port"])
    return parse_target(text).host.removesuffix(".")
