"""Where a call comes from: gRPC's text for a peer, written and taken apart."""

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
        """Of an address as a socket names it. Raises ``ValueError`` where it is no IP address."""
        address = ipaddress.ip_address(host.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return cls(str(mapped or address), port)


def parse_peer(peer: str) -> PeerAddress | None:
    """Of ``ipv4:192.0.2.1:50000`` or ``ipv6:[2001:db8::1]:50000``; None for anything else."""
    scheme, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if scheme not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    try:
        return PeerAddress.of(host.strip("[]"), int(port))
    except ValueError:
        return None


def network_of(address: str) -> str:
    """What one customer of a network provider has: an IPv4 address, the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


@lru_cache(1024)  # a connection's calls ask again and again
def network_of_peer(peer: str) -> str:
    """The same of a peer as gRPC names it; what is no IP address stands for itself."""
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
