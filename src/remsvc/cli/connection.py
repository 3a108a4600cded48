"""The options by which a verb is told its server, and the client that is made from them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from remsvc.cli import parameters
from remsvc.cli.options import Option, file
from remsvc.cli.terminal import warning_line
from remsvc.client.metadata import bearer_token, read_bearer_token
from remsvc.client.options import ConnectionOptions
from remsvc.client.target import DEFAULT_PORT, parse_target
from remsvc.grpc_environment import set_grpc_environment

if TYPE_CHECKING:
    from pathlib import Path

    from remsvc.client import Client

CONNECTION = (
    Option(
        "server",
        ("-s", "--server"),
        kind=parameters.server,
        metavar="HOST:PORT",
        default=f"127.0.0.1:{DEFAULT_PORT}",
        variable="REMSVC_SERVER",
        help="The server.",
    ),
    Option(
        "tls", ("--tls",), off="--no-tls", switch=True, help="Encrypt. Implied by the next three options."
    ),
    Option(
        "ca_cert",
        ("--ca-cert",),
        kind=file,
        variable="REMSVC_CA_CERT",
        help="Authorities to trust, in PEM form, instead of the system's.",
    ),
    Option("cert", ("--cert",), kind=file, help="Client certificate for mutual TLS, in PEM form."),
    Option("key", ("--key",), kind=file, help="Its private key."),
    Option(
        "token_file",
        ("--token-file",),
        kind=file,
        help="File with the bearer token; else the variable REMSVC_TOKEN holds it.",
    ),
    Option(
        "proxy",
        ("--proxy",),
        off="--no-proxy",
        switch=True,
        help="Use the HTTP proxy that the environment names (grpc_proxy, https_proxy, http_proxy), or not. "
        "Else with TLS alone, and not for this machine.",
    ),
)


def check_connection(values: Mapping[str, Any], given: Collection[str]) -> None:
    """Check that values do not contradict each other. Raises ``ValueError``.

    Args:
        values: of all options.
        given: the names of those that stand on the command line.
    """
    if (values["cert"] is None) != (values["key"] is None):
        raise ValueError("--cert and --key belong together")
    if values["tls"] is False and (values["cert"] is not None or "ca_cert" in given):
        raise ValueError("--no-tls contradicts --ca-cert, --cert and --key")


def connection(
    server: str,
    tls: bool | None,
    ca_cert: Path | None,
    cert: Path | None,
    key: Path | None,
    token_file: Path | None,
    proxy: bool | None,
) -> ConnectionOptions:
    """A client's options from checked values of :data:`CONNECTION`. Raises :class:`ConfigurationError`."""
    if tls is False:
        ca_cert = None
    options = ConnectionOptions(
        target=server,
        tls=bool(tls or ca_cert or cert),
        ca_cert=ca_cert,
        client_cert=cert,
        client_key=key,
        token=_token(token_file),
        proxy=proxy,
    )
    if options.token is not None and not options.tls:
        if not parse_target(server).is_loopback:
            warning_line(f"the token travels in the clear to {server}: use --tls")
        elif proxy:
            warning_line("the token travels in the clear through the proxy: use --tls")
    return options


def open_client(options: ConnectionOptions) -> Client:
    """A client for ``options``, to be closed by the caller. Ctrl-C interrupts its calls."""
    set_grpc_environment(server=False)
    from remsvc.client import Client

    return Client(options)


def _token(file: Path | None) -> str | None:
    if file is not None:
        return read_bearer_token(file, f"--token-file {file}")
    text = os.environ.get("REMSVC_TOKEN")
    return bearer_token(text, "the variable REMSVC_TOKEN") if text else None
