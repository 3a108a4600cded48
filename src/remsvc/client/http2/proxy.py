"""Reaches a server through the HTTP proxy that the environment names, where the options permit that.

The variables are gRPC's: the first that is set of ``grpc_proxy``, ``https_proxy``, ``http_proxy`` names
the proxy, the first of ``no_grpc_proxy``, ``no_proxy`` the hosts that are reached without it.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from remsvc.client.target import Target

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
_DEFAULT_PORT = 80
MAX_REPLY_BYTES = 16 * 1024


class ProxyError(Exception):
    """The proxy does not let the connection through."""


class Proxy(NamedTuple):
    """A proxy's address, and ``user:password`` where it asks for them."""

    address: Target
    credentials: str = ""

    def request(self, target: Target) -> bytes:
        """The request for a connection to ``target``."""
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.credentials:
            encoded = base64.b64encode(self.credentials.encode("utf-8")).decode("ascii")
            lines.append(f"Proxy-Authorization: Basic {encoded}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


def check_reply(reply: bytes) -> bool:
    """Whether the whole reply of a proxy is here. Raises :class:`ProxyError` where the proxy refuses."""
    if b"\r\n\r\n" not in reply:
        if len(reply) > MAX_REPLY_BYTES:
            raise ProxyError("the proxy's reply is too long")
        return False
    words = reply.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].startswith(b"2"):
        status = reply.split(b"\r\n", 1)[0][:80].decode("ascii", "replace")
        raise ProxyError(f"the proxy refused the connection: {status}")
    return True


def proxy_for(target: Target, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy through which ``target`` is reached; None: it is reached directly."""
    uri = next((environment[name] for name in _PROXIES if environment.get(name)), "")
    if not uri.startswith("http://"):
        return None  # as gRPC does with what it cannot use
    without = next((environment[name] for name in _EXCEPTIONS if environment.get(name)), "")
    if any(_covers(entry.strip(), target.host) for entry in without.split(",")):
        return None
    from urllib.parse import unquote  # slow to load

    authority = uri.removeprefix("http://").split("/", 1)[0]
    credentials, _, address = authority.rpartition("@")
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = address.partition(":")
    if not host or (port and not (port.isascii() and port.isdigit())):
        return None
    return Proxy(Target(host, int(port) if port else _DEFAULT_PORT), unquote(credentials))


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of ``no_proxy``, the end of a name or a network, means this host."""
    if not entry:
        return False
    if "/" in entry:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    return host.lower().endswith(entry.lower())
