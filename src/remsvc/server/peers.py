"""Addresses that calls come from: writes and reads the text by which gRPC names a peer."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote


class PeerAddress(NamedTuple):
    """An IP address and a port; an IPv4 address inside an IPv6 one is the IPv4 address."""

    address: str
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> PeerAddress:
        """From a host and a port, as a socket has them.

        Raises:
            ValueError: ``host`` is no IP address.
        """
        address = ipaddress.ip_address(host.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return cls(str(mapped or address), port)


def parse_peer(peer: str) -> PeerAddress | None:
    """The address in ``ipv4:192.0.2.1:50000`` or ``ipv6:[2001:db8::1]:50000``; None in any other text."""
    scheme, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if scheme not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    try:
        return PeerAddress.of(host.strip("[]"), int(port))
    except ValueError:
        return None


def network_of(address: str) -> str:
    """The network whose addresses count as one caller: an IPv4 address itself, the /64 of an IPv6 address.

    That is what one customer of a network provider usually has.
    """
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


@lru_cache(1024)  # a connection's calls ask again and again
def network_of_peer(peer: str) -> str:
    """The network of a peer, as gRPC names it. A peer without an IP address counts as its own network."""
    found = parse_peer(peer)
    return network_of(found.address) if found else peer


def peer_name(address: Any) -> str:
    """A socket's address as gRPC writes it: ``ipv4:192.0.2.1:50000``, ``ipv6:%5B2001:db8::1%5D:50000``."""
    host, port = str(address[0]), address[1]
    if ":" not in host:
        return f"ipv4:{host}:{port}"
    if host.startswith("::ffff:") and "." in host:
        return f"ipv4:{host.removeprefix('::ffff:')}:{port}"
    return f"ipv6:%5B{host}%5D:{port}"
