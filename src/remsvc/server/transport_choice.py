"""Which transports there are, and which one it is where nobody has chosen."""

from __future__ import annotations

from remsvc.http2.installation import engine_is_installed

HTTP2, GRPC = "http2", "grpc"
TRANSPORTS = (HTTP2, GRPC)


def default_transport() -> str:
    """Our own HTTP/2, wherever its engine is installed."""
    return HTTP2 if engine_is_installed() else GRPC


def transport_fault(transport: str) -> str | None:
    """Why no server may listen with this transport as it is installed; None where it may."""
    if transport != GRPC:
        return None
    from remsvc.server.grpc_transport.affected_versions import installed_version_fault

    return installed_version_fault()
