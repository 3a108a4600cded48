"""``remsvc serve``: the server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from remsvc.cli.extras import needs_extra

_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--config", type=_FILE, help="Configuration file (INI); the flags below override it.")
@click.option("--port", type=int, help="Port, 0 for any free one.  [default: 50051]")
@click.option(
    "--host",
    help="Address to listen on.  [default: 127.0.0.1; every interface where TLS and a token or a client "
    "certificate protect it]",
)
@click.option("--tls/--no-tls", default=None, help="Encrypt; needs --cert and --key.")
@click.option("--cert", type=_FILE, help="Server certificate, in PEM form.")
@click.option("--key", type=_FILE, help="Its private key.")
@click.option("--ca-cert", type=_FILE, help="Require client certificates of these authorities (mutual TLS).")
@click.option("--cmd-timeout-ms", type=int, help="Time limit of a command.  [default: 30000]")
@click.option("--state-dir", type=_FILE, help="Directory for the server's own files.")
@click.option("--deny", multiple=True, metavar="PATTERN", help="Refuse commands that match. Repeatable.")
@click.option(
    "--allow", multiple=True, metavar="PATTERN", help="Refuse commands that match none of these. Repeatable."
)
@click.option("--transport", metavar="http2|grpc", help="What carries calls.  [default: http2]")
@click.option(
    "--peer-uid",
    metavar="USER,...",
    help="Let only these users of this host call: numbers, names, or self. On a loopback address; Linux.",
)
@click.option("--log-level", help="debug, info, warning or error.  [default: info]")
@click.option("--log-file", type=_FILE, help="Log to this file too; rotated.")
def serve(config: Path | None, **flags: Any) -> None:
    """Start the server. Runs until SIGTERM or Ctrl-C.

    Prints "listening on HOST:PORT" on standard output once it accepts calls, and logs to standard
    error. With neither tokens nor client certificates it listens on 127.0.0.1 only.

    \b
    Examples:
      remsvc serve
      remsvc serve --config /etc/remsvc/server.ini
      remsvc serve --port 0 --deny 'rm\\s+-rf\\s+/' --cmd-timeout-ms 60000
    """
    with needs_extra("server"):
        from remsvc.server.app import serve as serve_until_signal
        from remsvc.server.config import load_config

        overrides = {name: value for name, value in flags.items() if value not in (None, ())}
        configuration = load_config(config, overrides)
    sys.exit(serve_until_signal(configuration))
