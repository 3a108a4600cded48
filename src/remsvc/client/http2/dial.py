"""Connects a socket for asyncio: tries all addresses of a name, and passes a proxy where there is one."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress

from remsvc.client.http2.endpoint import (
    NEXT_ADDRESS_SECONDS,
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
from remsvc.client.target import Target


async def dial(endpoint: Endpoint) -> socket.socket:
    """A socket that is connected to the server, without TLS yet. Raises :class:`ConnectError`."""
    hop = endpoint.next_hop
    addresses = literal_addresses(hop)
    if not addresses:
        addresses = await _resolved(hop)
    connected = await _first(addresses)
    if endpoint.proxy is not None:
        try:
            await _pass_proxy(connected, endpoint.proxy, endpoint.target)
        except BaseException:
            connected.close()
            raise
    return connected


async def _resolved(hop: Target) -> list[Address]:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[list[Address] | OSError] = loop.create_future()

    def note(answer: list[Address] | OSError) -> None:
        if not answered.done():
            answered.set_result(answer)

    def deliver(answer: list[Address] | OSError) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(note, answer)

    resolve(hop, deliver)
    answer = await answered
    if isinstance(answer, OSError):
        raise resolution_failure(hop, answer) from answer
    return answer


async def _first(addresses: list[Address]) -> socket.socket:
    """A socket to the address that answers first; the next one is tried where the one before takes long."""
    untried = deque(addresses)
    trying: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException | None = None
    try:
        while untried or trying:
            if untried:
                trying.add(asyncio.create_task(_connect(untried.popleft())))
            done, trying = await asyncio.wait(
                trying,
                timeout=NEXT_ADDRESS_SECONDS if untried else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            winners = [task.result() for task in done if task.exception() is None]
            for extra in winners[1:]:
                extra.close()
            if winners:
                return winners[0]
            failure = next((task.exception() for task in done), failure)
    finally:
        for task in trying:
            task.cancel()
            task.add_done_callback(_close)
    raise failure if failure is not None else ConnectError("empty address list")


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(address: Address) -> socket.socket:
    family, where = address
    try:
        connecting = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectError(f"{shown_address(where)}: {os_reason(error)}") from error
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connecting, where)
    except BaseException as error:
        connecting.close()
        if isinstance(error, OSError):
            raise ConnectError(f"{shown_address(where)}: {os_reason(error)}") from error
        raise
    return connecting


async def _pass_proxy(connected: socket.socket, proxy: Proxy, target: Target) -> None:
    loop = asyncio.get_running_loop()
    reply = b""
    try:
        await loop.sock_sendall(connected, proxy.request(target))
        while not check_reply(reply):
            # Byte by byte: what comes after the reply is the server's.
            piece = await loop.sock_recv(connected, 1)
            if not piece:
                raise ProxyError("the proxy closed the connection")
            reply += piece
    except (OSError, ProxyError) as error:
        raise ConnectError(f"proxy {proxy.address}: {error}") from error
