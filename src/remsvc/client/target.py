"""The address of a server: ``host:port``."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from remsvc.errors import ConfigurationError

DEFAULT_PORT = 50051

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE | re.ASCII)


class Target(NamedTuple):
    """A valid host (a name, or an IPv4 or IPv6 address without brackets) and a valid port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine itself."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower().removesuffix(".") == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_target(text: str) -> Target:
    """Read ``host``, ``host:port``, ``[ipv6]`` or ``[ipv6]:port``; the default port is 50051.

    Raises:
        ConfigurationError: it is not an address, saying why.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _bad(text, "an IPv6 address is written [ADDRESS]:PORT")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _bad(text, f"{host!r} is not an IPv6 address") from None
        return Target(host, _port(text, rest[1:]) if rest else DEFAULT_PORT)
    if "://" in text:
        raise _bad(text, "leave out the scheme")
    if text.count(":") > 1:
        raise _bad(text, "an IPv6 address needs brackets: [ADDRESS]:PORT")
    host, colon, port = text.partition(":")
    _check_host(text, host)
    return Target(host, _port(text, port) if colon else DEFAULT_PORT)


def _check_host(text: str, host: str) -> None:
    if not host:
        raise _bad(text, "the host is missing")
    if not host.isascii():
        raise _bad(text, "an international name is written in its ASCII form (xn--...)")
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad(text, f"{host!r} is not a host name")
    if labels[-1].isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise _bad(text, f"{host!r} is not an IPv4 address") from None


def _port(text: str, port: str) -> int:
    if port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535:
        return int(port)
    raise _bad(text, f"the port must be 1 to 65535, not {port!r}")


def _bad(text: str, why: str) -> ConfigurationError:
    return ConfigurationError([f"target {text!r}: expected HOST:PORT; {why}"])
