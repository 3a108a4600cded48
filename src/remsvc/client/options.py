"""How to reach a server. Imports no gRPC, so that an Airflow hook can build it cheaply."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_PORT = 50051
JOBS_KEEPALIVE = 15.0

AUTO, HTTP2, GRPC = TRANSPORTS = ("auto", "http2", "grpc")


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Everything a connection is made of. Hashable: a pool may use it as its key.

    Attributes:
        target: ``host:port``; an IPv6 address in brackets.
        tls: encrypt, and verify the server's certificate.
        ca_cert: PEM file of the authorities to trust; None for the system's. Only used with ``tls``.
        client_cert, client_key: PEM files for mutual TLS; both or neither. Only used with ``tls``.
        token: bearer token, sent as ``authorization: Bearer TOKEN``. Never shown by ``repr()``.
        keepalive: seconds between keepalive pings while a call is open (load balancers drop
            connections that are idle for minutes, many after 350 s). gRPC servers that are not told
            otherwise, such as the C++ server, break calls whose client pings more often than every
            300 s.
        transport: ``http2``, which is quick and takes the extra ``[http2]``; ``grpc``, gRPC's own
            library; ``auto``: ``http2`` where it is installed.
    """

    target: str
    tls: bool = False
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    token: str | None = field(default=None, repr=False)
    keepalive: float = 310.0
    transport: str = AUTO

    def for_jobs(self) -> ConnectionOptions:
        """The same for a connection that serves jobs alone, and is found to be dead within half a minute.

        Every server that has jobs permits such frequent keepalive pings; a version 1 server may not.
        """
        return replace(self, keepalive=min(self.keepalive, JOBS_KEEPALIVE))
