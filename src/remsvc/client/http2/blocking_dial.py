"""Connects a blocking socket: tries all addresses of a name, passes a proxy, and begins TLS."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from remsvc.client.http2.endpoint import (
    NEXT_ADDRESS_SECONDS,
    TIMED_OUT,
    Address,
    ConnectError,
    Endpoint,
    literal_addresses,
    os_reason,
    resolution_failure,
    resolve,
    shown_address,
)
from remsvc.client.http2.proxy import Proxy, ProxyError, check_reply

if TYPE_CHECKING:
    import ssl

    from remsvc.client.target import Target


def wait_for(
    reading: list[socket.socket], writing: list[socket.socket], timeout: float | None
) -> tuple[bool, list[socket.socket]]:
    """Wait until something can be read or written.

    Returns:
        Whether anything can be read, and the sockets that can be written to, or have failed.
    """
    if sys.platform == "win32":
        readable, writable, failed = select.select(reading, writing, writing, timeout)
        return bool(readable), list(dict.fromkeys(writable + failed))
    poll = select.poll()  # select() knows no descriptors above 1,023
    of = {each.fileno(): each for each in (*reading, *writing)}
    events = dict.fromkeys(of, 0)
    for each in reading:
        events[each.fileno()] |= select.POLLIN
    for each in writing:
        events[each.fileno()] |= select.POLLOUT
    for descriptor, wanted in events.items():
        poll.register(descriptor, wanted)
    ready = poll.poll(None if timeout is None else max(timeout, 0.0) * 1000)
    return (
        any(found & ~select.POLLOUT for _, found in ready),
        [
            of[descriptor]
            for descriptor, found in ready
            if found & ~select.POLLIN and of[descriptor] in writing
        ],
    )


def dial(endpoint: Endpoint, deadline: float) -> socket.socket:
    """A socket that is connected to the server, encrypted where the endpoint says so, and set not to block.

    Args:
        endpoint: where it leads.
        deadline: until when, in seconds of the monotonic clock.

    Raises:
        ConnectError: there is no connection.
    """
    hop = endpoint.next_hop
    addresses = literal_addresses(hop)
    if not addresses:
        addresses = _resolved(hop, deadline)
    connected = _first(addresses, deadline)
    try:
        peer = shown_address(connected.getpeername())
        if endpoint.proxy is not None:
            _pass_proxy(connected, endpoint.proxy, endpoint.target, deadline)
        if endpoint.tls is not None:
            connected = _encrypted(connected, endpoint.tls, endpoint, deadline, peer)
        connected.setblocking(False)
    except OSError as error:
        connected.close()
        raise ConnectError(os_reason(error)) from error
    except BaseException:
        connected.close()
        raise
    return connected


def _resolved(hop: Target, deadline: float) -> list[Address]:
    answers: SimpleQueue[list[Address] | OSError] = SimpleQueue()
    resolve(hop, answers.put)
    try:
        answer = answers.get(timeout=max(deadline - time.monotonic(), 0.0))
    except Empty:
        raise resolution_failure(hop, TimeoutError("the resolver did not answer in time")) from None
    if isinstance(answer, OSError):
        raise resolution_failure(hop, answer) from answer
    return answer


def _first(addresses: list[Address], deadline: float) -> socket.socket:
    """A socket to the address that answers first; the next one is tried where the one before takes long."""
    untried = deque(addresses)
    trying: dict[socket.socket, Address] = {}
    failure = ConnectError("empty address list")
    try:
        while untried or trying:
            if untried:
                address = untried.popleft()
                try:
                    trying[_begin(address)] = address
                except OSError as error:
                    failure = ConnectError(f"{shown_address(address[1])}: {os_reason(error)}")
                    continue
            patience = deadline - time.monotonic()
            if patience <= 0:
                raise ConnectError(TIMED_OUT)
            if untried:
                patience = min(patience, NEXT_ADDRESS_SECONDS)
            for ready in wait_for([], list(trying), patience)[1]:
                _, where = trying.pop(ready)
                if code := ready.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    ready.close()
                    failure = ConnectError(f"{shown_address(where)}: {os_reason(OSError(code, ''))}")
                else:
                    return ready
    finally:
        for each in trying:
            each.close()
    raise failure


def _begin(address: Address) -> socket.socket:
    family, where = address
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):  # when it is connected, it can be written to
            connecting.connect(where)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _pass_proxy(connected: socket.socket, proxy: Proxy, target: Target, deadline: float) -> None:
    reply = b""
    try:
        connected.settimeout(max(deadline - time.monotonic(), 0.01))
        connected.sendall(proxy.request(target))
        while not check_reply(reply):
            # Byte by byte: what comes after the reply is the server's.
            connected.settimeout(max(deadline - time.monotonic(), 0.01))
            piece = connected.recv(1)
            if not piece:
                raise ProxyError("the proxy closed the connection")
            reply += piece
    except (OSError, ProxyError) as error:
        raise ConnectError(f"proxy {proxy.address}: {error}") from error


def _encrypted(
    connected: socket.socket, context: ssl.SSLContext, endpoint: Endpoint, deadline: float, peer: str
) -> socket.socket:
    from remsvc.client.http2.tls import NO_HTTP2, PROTOCOL, handshake_reason

    connected.settimeout(max(deadline - time.monotonic(), 0.01))
    encrypted: ssl.SSLSocket | None = None
    try:
        encrypted = context.wrap_socket(
            connected, server_hostname=endpoint.target.host.rstrip("."), do_handshake_on_connect=False
        )
        encrypted.do_handshake()
        if encrypted.selected_alpn_protocol() != PROTOCOL:
            raise ConnectError(f"{peer}: {NO_HTTP2}")
    except TimeoutError as error:
        _close(encrypted)
        raise ConnectError(f"{peer}: {TIMED_OUT}") from error
    except OSError as error:
        _close(encrypted)
        raise ConnectError(f"{peer}: {handshake_reason(error)}") from error
    except BaseException:
        _close(encrypted)
        raise
    return encrypted


def _close(encrypted: socket.socket | None) -> None:
    if encrypted is not None:
        encrypted.close()
