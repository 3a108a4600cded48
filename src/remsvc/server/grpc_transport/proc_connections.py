"""Finds the connections that this process has accepted, through ``/proc``, because gRPC does not show them.

It works on Linux alone; elsewhere it finds none.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from remsvc.server.peers import PeerAddress

# struct tcp_info: bytes_received, a u64 since Linux 4.1.
_BYTES_RECEIVED_AT = 128


@dataclass(frozen=True, slots=True)
class TcpConnection:
    """An accepted TCP connection.

    Attributes:
        peer: the other end.
        received: bytes that have come over it.
    """

    peer: PeerAddress
    received: int
    _fd: int

    def cut(self) -> bool:
        """End it, in both directions, as if the peer had. False where it has ended already.

        gRPC notices, and cleans up after it as after any other.
        """
        with _duplicate(self._fd) as duplicate:
            if duplicate is None or _peer(duplicate) != self.peer:
                return False
            try:
                duplicate.shutdown(socket.SHUT_RDWR)
            except OSError:
                return False
            return True


def accepted(port: int) -> Iterator[TcpConnection]:
    """The connections to the local ``port`` that are open."""
    if sys.platform != "linux":
        return
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        with _duplicate(fd) as duplicate:
            if duplicate is None:
                continue
            try:
                if duplicate.getsockname()[1] != port:
                    continue
                info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED_AT + 8)
            except OSError:
                continue
            peer = _peer(duplicate)
        if peer is not None and len(info) >= _BYTES_RECEIVED_AT + 8:
            yield TcpConnection(peer, struct.unpack_from("Q", info, _BYTES_RECEIVED_AT)[0], fd)


class _duplicate:  # noqa: N801  a context manager
    """A descriptor's IP stream socket, under a descriptor of our own: nobody can close that one and
    give its number to something else while it is looked at. None where it is something else."""

    def __init__(self, fd: int) -> None:
        self._socket: socket.socket | None = None
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                self._socket = socket.socket(fileno=os.dup(fd))
        except OSError:  # closed meanwhile, or no room for one more
            return
        families = (socket.AF_INET, socket.AF_INET6)
        if self._socket is not None and (
            self._socket.family not in families or self._socket.type != socket.SOCK_STREAM
        ):
            self.__exit__()

    def __enter__(self) -> socket.socket | None:
        return self._socket

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _peer(connection: socket.socket) -> PeerAddress | None:
    try:
        return PeerAddress.of(*connection.getpeername()[:2])
    except (OSError, ValueError):
        return None
