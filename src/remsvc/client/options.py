"""How to reach a server, and as whom. gRPC is not loaded: an Airflow hook makes options cheaply."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

JOBS_KEEPALIVE = 15.0

AUTO, HTTP2, GRPC = TRANSPORTS = ("auto", "http2", "grpc")


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Everything that a connection is made from. Hashable, so that a pool can use it as a key.

    Attributes:
        target: ``host:port``; an IPv6 address in brackets.
        tls: encrypt, and verify the server's certificate.
        ca_cert: PEM file of the authorities to trust; None for the system's. Only used with ``tls``.
        client_cert, client_key: PEM files for mutual TLS; both or neither. Only used with ``tls``.
        token: bearer token, sent as ``authorization: Bearer TOKEN``. Never shown by ``repr()``. Blanks and
            line ends around it, a byte order mark and the word ``Bearer`` before it are left out.
        keepalive: seconds between keepalive pings while a call is open (load balancers drop
            connections that are idle for minutes, many after 350 s). gRPC servers that are not told
            otherwise, such as the C++ server, break calls whose client pings more often than every
            300 s.
        transport: ``http2``, which is quick and takes the extra ``[http2]``; ``grpc``, gRPC's own
            library; ``auto``: ``http2`` where it is installed.
        proxy: whether the HTTP proxy that the environment names is used (``grpc_proxy``, ``https_proxy``,
            ``http_proxy``, except for the hosts of ``no_grpc_proxy`` or ``no_proxy``). True: it is; without
            ``tls`` it can read the token and the commands. False: never. None: with ``tls`` alone, and not
            for this machine itself, which no proxy reaches.
    """

    target: str
    tls: bool = False
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    token: str | None = field(default=None, repr=False)
    keepalive: float = 310.0
    transport: str = AUTO
    proxy: bool | None = None

    @property
    def may_use_proxy(self) -> bool:
        """Whether a proxy is used for this target. Raises :class:`~remsvc.errors.ConfigurationError`."""
        if self.proxy is not None:
            return self.proxy
        if not self.tls:
            return False
        from remsvc.client.target import parse_target  # slower to load, and rarely needed

        return not parse_target(self.target).is_loopback

    def for_jobs(self) -> ConnectionOptions:
        """The same options, for a connection that is used for durable jobs alone.

        It is pinged often, so that a dead connection is noticed within half a minute. Every server that has
        jobs permits that; a version 1 server may break the connection for it.
        """
        return replace(self, keepalive=min(self.keepalive, JOBS_KEEPALIVE))
