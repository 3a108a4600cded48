"""Where a connection leads: the server, a proxy on the way, TLS; and how names are looked up."""

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
"""Seconds that an attempt to connect may take."""
BEGIN_ATTEMPTS = 5
"""On so many connections a call is tried that end before it could begin on them."""
NEXT_ADDRESS_SECONDS = 0.25
"""Seconds after which the next address of a name is tried as well: RFC 8305, section 5."""

CLOSED = "the channel is closed"
TIMED_OUT = "connection attempt timed out before receiving SETTINGS frame"

Address = tuple[int, Any]
"""An address family, and an address in the form that sockets of this family take."""


class Endpoint(NamedTuple):
    """What a transport connects to.

    Attributes:
        target: the server.
        proxy: through which it is reached; None: directly.
        tls: encrypts the connection; None: it is not encrypted.
        keepalive: see ``ConnectionOptions``.
    """

    target: Target
    proxy: Proxy | None
    tls: ssl.SSLContext | None
    keepalive: float

    @classmethod
    def of(cls, options: ConnectionOptions) -> Endpoint:
        """The endpoint that options name. Raises :class:`~remsvc.errors.ConfigurationError`."""
        target = parse_target(options.target)
        context = None
        if options.tls:
            from remsvc.client.http2.tls import tls_context

            context = tls_context(options)
        proxy = proxy_for(target, os.environ) if options.may_use_proxy else None
        return cls(target, proxy, context, options.keepalive)

    @property
    def scheme(self) -> str:
        """The scheme that calls name: ``http`` or ``https``."""
        return "http" if self.tls is None else "https"

    @property
    def next_hop(self) -> Target:
        """What the socket connects to: the proxy, or else the server."""
        return self.target if self.proxy is None else self.proxy.address


class ConnectError(Exception):
    """No connection could be made. ``str()`` says why, in the words of gRPC."""


def connect_failure(reason: str) -> str:
    """The details of a call that failed because no connection could be made."""
    if reason.startswith("DNS resolution failed"):
        return reason
    return f"failed to connect to all addresses; last error: UNKNOWN: {reason}"


def resolution_failure(target: Target, error: OSError) -> ConnectError:
    """The error for a name whose address cannot be found."""
    return ConnectError(f"DNS resolution failed for {target}: {error.strerror or error}")


def literal_addresses(target: Target) -> list[Address]:
    """The address of a host that is an address itself; nothing for a name, which must be looked up."""
    try:
        return _addresses(target, socket.AI_NUMERICHOST)
    except OSError:
        return []


def resolve(target: Target, deliver: Callable[[list[Address] | OSError], None]) -> None:
    """Look up all addresses of a host in another thread, which delivers them, or the error.

    The system's resolver takes no time limit and cannot be interrupted. So each question has a thread of
    its own. Where nobody waits for the answer any more, the thread is left alone, and ends when the
    resolver gives up. A thread of a pool would hold up the pool's other work, and the end of the process.
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
    host = target.host.encode("ascii")  # text would have Python load its codec for international names
    found = socket.getaddrinfo(host, target.port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


def shown_address(address: Any) -> str:
    """An address in the form in which gRPC writes it."""
    host, port = address[0], address[1]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def os_reason(error: OSError) -> str:
    """The system's own words for an error."""
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
