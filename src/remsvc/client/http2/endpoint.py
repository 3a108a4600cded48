"""Where a connection leads: the server's address, and what lies on the way."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from remsvc.client.http2.proxy import Proxy, proxy_for
from remsvc.client.options import ConnectionOptions
from remsvc.client.target import Target, parse_target

if TYPE_CHECKING:
    import ssl

ATTEMPT_SECONDS = 20.0
"""After so long an attempt to connect has failed."""
BEGIN_ATTEMPTS = 5
"""So many connections a call tries that the server takes back before it could begin."""
NEXT_ADDRESS_SECONDS = 0.25
"""So long a name's next address waits for the one before it: RFC 8305, section 5."""

CLOSED = "the channel is closed"
TIMED_OUT = "connection attempt timed out before receiving SETTINGS frame"

Address = tuple[int, Any]
"""A family, and an address as sockets of this family take it."""


class Endpoint(NamedTuple):
    """What a transport connects to.

    Attributes:
        target: the server.
        proxy: through which it is reached; None: directly.
        tls: what the connection is encrypted with; None: nothing.
        keepalive: see ``ConnectionOptions``.
    """

    target: Target
    proxy: Proxy | None
    tls: ssl.SSLContext | None
    keepalive: float

    @classmethod
    def of(cls, options: ConnectionOptions) -> Endpoint:
        """Raises :class:`~remsvc.errors.ConfigurationError`."""
        target = parse_target(options.target)
        context = None
        if options.tls:
            from remsvc.client.http2.tls import tls_context

            context = tls_context(options)
        proxy = proxy_for(target, os.environ) if options.may_use_proxy else None
        return cls(target, proxy, context, options.keepalive)

    @property
    def scheme(self) -> str:
        """As calls name it."""
        return "http" if self.tls is None else "https"

    @property
    def next_hop(self) -> Target:
        """Where the socket leads."""
        return self.target if self.proxy is None else self.proxy.address


class ConnectError(Exception):
    """There is no connection. ``str()`` says why, as gRPC would."""


def connect_failure(reason: str) -> str:
    """The details of a call that failed because no connection could be made."""
    if reason.startswith("DNS resolution failed"):
        return reason
    return f"failed to connect to all addresses; last error: UNKNOWN: {reason}"


def resolution_failure(target: Target, error: OSError) -> ConnectError:
    """A name has no address."""
    return ConnectError(f"DNS resolution failed for {target}: {error.strerror or error}")


def literal_addresses(target: Target) -> list[Address]:
    """The addresses of a host that is one already; none of a name."""
    try:
        return _addresses(target, socket.AI_NUMERICHOST)
    except OSError:
        return []


def resolve(target: Target, deliver: Callable[[list[Address] | OSError], None]) -> None:
    """Look up all addresses of a host, and have them, or what went wrong, delivered by another thread.

    The system's resolver takes no time limit, and cannot be interrupted. A thread of its own asks it, is left
    alone where nobody waits any more, and ends when the resolver gives up. A thread of a pool would hold up
    others meanwhile, and the end of the process.
    """

    def ask() -> None:
        try:
            deliver(_addresses(target, 0))
        except OSError as error:
            deliver(error)

    try:
        threading.Thread(target=ask, name="remsvc-resolve", daemon=True).start()
    except RuntimeError as error:  # the system has no thread left
        deliver(OSError(str(error)))


def _addresses(target: Target, flags: int) -> list[Address]:
    host = target.host.encode("ascii")  # as text, it would have the codec for international names loaded
    found = socket.getaddrinfo(host, target.port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


def shown(address: Any) -> str:
    """An address as gRPC writes it."""
    host, port = address[0], address[1]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def os_reason(error: OSError) -> str:
    """What the system says, in a few words."""
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
