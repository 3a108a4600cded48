"""Asks the kernel which user is at the other end of a connection within this host. Linux only.

For each socket, the kernel knows the user who made it, and tells whoever asks (``sock_diag(7)``). The
answer is about the process that has connected: somebody who gets a process of root's to connect for him,
such as a proxy or a forwarded port, counts as root here.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _ERROR = 20, 2
_REQUEST = 1
_NO_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=LHHLL")  # struct nlmsghdr
_QUESTION = struct.Struct("=BBBxL")  # struct inet_diag_req_v2, up to the socket
_PORTS = struct.Struct("!HH")  # struct inet_diag_sockid, up to the addresses
_REST = struct.Struct("=LLL")  # and from there on
# In struct inet_diag_msg.
_STATE_AT, _UID_AT, _ANSWER_BYTES = 1, 64, 72
_ESTABLISHED = 1
_MOST_BYTES = 4096


def peer_owner(accepted: socket.socket) -> int | None:
    """The number of the user who has made the other end of an accepted connection.

    None where the kernel cannot tell: the other end is on another host, in another network namespace, or
    closed. A closed one belongs to nobody any more, and the kernel would say that it was root's.
    """
    if sys.platform != "linux":
        return None
    try:
        found = _ask(accepted.family, accepted.getpeername(), accepted.getsockname())
    except OSError:
        return None
    if found is None or found[_STATE_AT] != _ESTABLISHED:
        return None
    uid, inode = struct.unpack_from("=LL", found, _UID_AT)
    return int(uid) if inode else None


def fault() -> str | None:
    """Why this system does not tell who connects; None where a connection to ourselves shows that it does."""
    if sys.platform != "linux":
        return "only Linux tells who is at the other end of a connection"
    import os

    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listening,
            socket.create_connection(listening.getsockname(), 5),
            listening.accept()[0] as accepted,
        ):
            owner = peer_owner(accepted)
    except OSError as error:
        return f"a connection to ourselves fails: {error.strerror or error}"
    if owner != os.geteuid():
        return "the kernel does not tell who is at the other end of a connection (sock_diag, module tcp_diag)"
    return None


def _ask(family: int, source: tuple[str, int], target: tuple[str, int]) -> bytes | None:
    """What the kernel knows of the socket that is connected from ``source`` to ``target``."""
    if sys.platform != "linux":
        return None
    addresses = [socket.inet_pton(family, address[0].partition("%")[0]) for address in (source, target)]
    identity = _PORTS.pack(source[1], target[1]) + b"".join(address.ljust(16, b"\0") for address in addresses)
    identity += _REST.pack(0, _NO_COOKIE, _NO_COOKIE)
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 1 << _ESTABLISHED) + identity
    message = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0) + question
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.setblocking(False)  # it answers at once
        kernel.sendto(message, (0, 0))
        answer = kernel.recv(_MOST_BYTES)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind == _ERROR:
        (error,) = struct.unpack_from("=i", answer, _HEADER.size)
        if -error == errno.ENOENT:
            return None
        raise OSError(-error, "the kernel does not tell")
    found = answer[_HEADER.size :]
    return found if kind == _SOCK_DIAG_BY_FAMILY and len(found) >= _ANSWER_BYTES else None
