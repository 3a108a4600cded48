"""The kinds of transport: their names, the default, and why one must not be used here."""

from __future__ import annotations

import re

from remsvc.http2 import engine_is_installed

# From here on, gRPC's server decodes the name of the called method in its main loop. A name that is not
# UTF-8 ends the loop and closes the port. The newest release, 1.85.3, still does; until one is known to be
# mended, every later one counts as affected. Clients have no such loop.
_FIRST_AFFECTED = (1, 84)


def installed_version_fault() -> str | None:
    """Why no server may listen with the gRPC that is installed; None where nothing is known against it.

    To find out, gRPC is not imported. Where the installation does not tell its version, nothing is known.
    """
    from importlib.metadata import PackageNotFoundError, version  # slow to load

    try:
        installed = version("grpcio")
    except PackageNotFoundError:
        return None
    numbers = re.match(r"(\d+)\.(\d+)", installed)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _FIRST_AFFECTED:
        return None
    return (
        f"transport grpc: grpcio {installed} is installed: whoever reaches the port could end the server "
        "with one packet, without a token. Use transport = http2, which needs the package ngh2, or a grpcio "
        "before 1.84; pip install 'airflow-provider-remsvc[server]' brings both"
    )


HTTP2, GRPC = "http2", "grpc"
TRANSPORTS = (HTTP2, GRPC)


def default_transport() -> str:
    """Our own HTTP/2, wherever its engine is installed."""
    return HTTP2 if engine_is_installed() else GRPC


def transport_fault(transport: str) -> str | None:
    """Why no server may listen with this transport as it is installed; None where it may."""
    return installed_version_fault() if transport == GRPC else None
