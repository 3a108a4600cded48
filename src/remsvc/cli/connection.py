"""The options of every verb that talks to a server, and the client they make."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remsvc.cli import parameters
from remsvc.cli.terminal import warning_line
from remsvc.client.options import DEFAULT_PORT, ConnectionOptions
from remsvc.client.target import parse_target
from remsvc.errors import ConfigurationError

if TYPE_CHECKING:
    from remsvc.client import Client

_FILE = click.Path(path_type=Path)

_OPTIONS = (
    click.option(
        "-s",
        "--server",
        type=parameters.server,
        metavar="HOST:PORT",
        default=f"127.0.0.1:{DEFAULT_PORT}",
        envvar="REMSVC_SERVER",
        show_default=True,
        show_envvar=True,
        help="The server.",
    ),
    click.option("--tls/--no-tls", default=None, help="Encrypt. Implied by the next three options."),
    click.option(
        "--ca-cert",
        type=_FILE,
        envvar="REMSVC_CA_CERT",
        show_envvar=True,
        help="Authorities to trust, in PEM form, instead of the system's.",
    ),
    click.option("--cert", type=_FILE, help="Client certificate for mutual TLS, in PEM form."),
    click.option("--key", type=_FILE, help="Its private key."),
    click.option(
        "--token-file",
        type=_FILE,
        help="File with the bearer token; else the variable REMSVC_TOKEN holds it.",
    ),
)


def connection_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a connection to a verb; it gets one ``ConnectionOptions`` as first argument."""

    @wraps(verb)
    def with_connection(
        *,
        server: str,
        tls: bool | None,
        ca_cert: Path | None,
        cert: Path | None,
        key: Path | None,
        token_file: Path | None,
        **others: Any,
    ) -> Any:
        if (cert is None) != (key is None):
            raise click.UsageError("--cert and --key belong together")
        if tls is False:
            if cert is not None or _on_command_line("ca_cert"):
                raise click.UsageError("--no-tls contradicts --ca-cert, --cert and --key")
            ca_cert = None
        options = ConnectionOptions(
            target=server,
            tls=bool(tls or ca_cert or cert),
            ca_cert=ca_cert,
            client_cert=cert,
            client_key=key,
            token=_token(token_file),
        )
        if options.token is not None and not options.tls and not _is_loopback(server):
            warning_line(f"the token travels in the clear to {server}: use --tls")
        return verb(options, **others)

    for option in reversed(_OPTIONS):
        option(with_connection)
    return with_connection


def open_client(options: ConnectionOptions) -> Client:
    """A client for ``options``, to be closed by the caller. Ctrl-C interrupts its calls."""
    # Our errors say what happened; gRPC would write lines of its own to standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from remsvc.client import Client

    return Client(options)


def _on_command_line(parameter: str) -> bool:
    source = click.get_current_context().get_parameter_source(parameter)
    return source is click.core.ParameterSource.COMMANDLINE


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("REMSVC_TOKEN") or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigurationError([f"--token-file {file}: expected text"]) from None
    except OSError as error:
        raise ConfigurationError([f"--token-file {file}: cannot be read: {error.strerror}"]) from error
    if not token:
        raise ConfigurationError([f"--token-file {file}: is empty"])
    return token


def _is_loopback(server: str) -> bool:
    host = parse_target(server).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
