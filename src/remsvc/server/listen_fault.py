"""Says in words why a server cannot listen on its address."""

from __future__ import annotations

import errno
import socket

_PRIVILEGED = 1024


def listen_fault(host: str, port: int, error: OSError) -> str:
    """The message for ``error``, with which the attempt to listen on ``host`` and ``port`` has ended."""
    shown = f"[{host}]" if ":" in host else host
    return f"cannot listen on {shown}:{port}: {_reason(host, port, error)}"


def find_listen_fault(host: str, port: int) -> OSError | None:
    """Try to listen there: the error with which that ends; None where it succeeds."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        with socket.create_server(address[:2], family=family):
            return None
    except OSError as error:
        return error


def _reason(host: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host {host} cannot be looked up ({error.strerror})"
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use ({error.strerror})"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"the address is not this host's ({error.strerror})"
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = f"; ports below {_PRIVILEGED} take a privilege" if 0 < port < _PRIVILEGED else ""
        return f"there is no permission{hint} ({error.strerror})"
    return error.strerror or str(error)
