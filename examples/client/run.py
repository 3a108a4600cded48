"""Run commands on another machine and use their results.

    python examples/client/run.py

The environment names the server: REMSVC_SERVER (host:port), REMSVC_TOKEN, and REMSVC_CA_CERT where the
server speaks TLS. ``remsvc init`` makes all that is needed for it.
"""

from __future__ import annotations

import os
from pathlib import Path

from remsvc.client import Client, ConnectionOptions
from remsvc.command import Command
from remsvc.errors import RemSvcError


def options_from_environment() -> ConnectionOptions:
    ca_cert = os.environ.get("REMSVC_CA_CERT")
    return ConnectionOptions(
        os.environ.get("REMSVC_SERVER", "127.0.0.1:50051"),
        tls=ca_cert is not None,
        ca_cert=Path(ca_cert) if ca_cert else None,
        token=os.environ.get("REMSVC_TOKEN"),
    )


def main() -> None:
    with Client(options_from_environment()) as client:
        # A command that fails is a result as well: only what keeps the command from running is an error.
        result = client.run(Command("echo hello; ls /nowhere"), timeout=30)
        print(f"exit code {result.rc}, out {result.out!r}, err {result.err!r}")

        # Several commands, one after another over one stream; each result is here as soon as its command has
        # ended.
        for result in client.run_many([Command("hostname"), Command("uname -s"), Command("whoami")]):
            print(f"command {result.tid}: {result.out.strip()}")


if __name__ == "__main__":
    try:
        main()
    except RemSvcError as error:
        raise SystemExit(f"error: {error}") from error
