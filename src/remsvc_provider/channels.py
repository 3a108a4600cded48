"""The pool of connections: one per event loop, server and credentials.

A triggerer runs thousands of triggers in one loop. They share a connection, so that each pays for no
TCP and TLS handshake of its own. A connection belongs to the loop it was made in, and is closed with it.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import grpc.aio

    from remsvc.client.options import ConnectionOptions
    from remsvc.client.transport import AsyncTransport

_Stamp = tuple[int, int] | None
_Key = tuple["ConnectionOptions", tuple[_Stamp, ...]]


class _LoopPool:
    """What one running event loop has."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._transports: dict[_Key, AsyncTransport] = {}
        self._channels: dict[_Key, grpc.aio.Channel] = {}
        # asyncio.run() cancels all tasks before it closes the loop: this one then closes the connections.
        self._keeper = loop.create_task(self._close_at_the_end(), name="remsvc-connections")

    def transport(self, options: ConnectionOptions) -> AsyncTransport:
        from remsvc.client.options import GRPC
        from remsvc.client.transport import Readiness
        from remsvc.client.transport_choice import chosen_transport, open_async_transport, over_channel

        if chosen_transport(options) == GRPC:
            return over_channel(self.channel(options))
        key = _key(options)
        transport = self._transports.get(key)
        if transport is None or transport.readiness is Readiness.CLOSED:
            transport = self._transports[key] = open_async_transport(options)
        return transport

    def channel(self, options: ConnectionOptions) -> grpc.aio.Channel:
        import grpc

        from remsvc.client.channel import open_async_channel

        key = _key(options)
        channel = self._channels.get(key)
        if channel is None or channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
            channel = self._channels[key] = open_async_channel(options)
        return channel

    async def _close_at_the_end(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            while self._transports:
                _, transport = self._transports.popitem()
                await transport.close()
            while self._channels:
                _, channel = self._channels.popitem()
                await channel.close()


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopPool] = WeakKeyDictionary()
_lock = threading.Lock()


def pooled_transport(options: ConnectionOptions) -> AsyncTransport:
    """The running loop's connection for these options. The pool owns it: never close it.

    A certificate or key file that was replaced counts as new credentials; the connection of the old ones
    stays for the calls that use it, and is given up once it is idle.

    Raises:
        RuntimeError: no event loop is running.
        RemSvcError: the options cannot be used, for example a file is missing.
    """
    return _pool().transport(options)


def pooled_channel(options: ConnectionOptions) -> grpc.aio.Channel:
    """As :func:`pooled_transport`, but always a channel of gRPC's: for those who make calls of their own."""
    return _pool().channel(options)


def _pool() -> _LoopPool:
    loop = asyncio.get_running_loop()
    with _lock:
        pool = _pools.get(loop)
        if pool is None:
            pool = _pools[loop] = _LoopPool(loop)
    return pool


def _key(options: ConnectionOptions) -> _Key:
    return options, tuple(map(_stamp, (options.ca_cert, options.client_cert, options.client_key)))


def _stamp(path: Path | None) -> _Stamp:
    """What changes when a file is replaced. Whether it can be read is seen when the connection is made."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size)
