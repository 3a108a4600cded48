"""The pool of ``grpc.aio`` channels: one per event loop, server and credentials.

A triggerer runs thousands of triggers in one loop. They share a connection, so that each pays for no
TCP and TLS handshake of its own. A channel belongs to the loop it was made in, and is closed with it.
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

_Stamp = tuple[int, int] | None
_Key = tuple["ConnectionOptions", tuple[_Stamp, ...]]


class _LoopChannels:
    """The channels of one running event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._channels: dict[_Key, grpc.aio.Channel] = {}
        # asyncio.run() cancels all tasks before it closes the loop: this one then closes the channels.
        self._keeper = loop.create_task(self._close_at_the_end(), name="remsvc-channels")

    def get(self, options: ConnectionOptions) -> grpc.aio.Channel:
        import grpc

        from remsvc.client.channel import open_async_channel

        key = (options, tuple(map(_stamp, (options.ca_cert, options.client_cert, options.client_key))))
        channel = self._channels.get(key)
        if channel is None or channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
            channel = self._channels[key] = open_async_channel(options)
        return channel

    async def _close_at_the_end(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            while self._channels:
                _, channel = self._channels.popitem()
                await channel.close()


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopChannels] = WeakKeyDictionary()
_lock = threading.Lock()


def pooled_channel(options: ConnectionOptions) -> grpc.aio.Channel:
    """The running loop's channel for these options. The pool owns it: never close it.

    A certificate or key file that was replaced counts as new credentials; the channel of the old ones
    stays for the calls that use it, and lets its connection go once it is idle.

    Raises:
        RuntimeError: no event loop is running.
        RemSvcError: the options cannot be used, for example a file is missing.
    """
    loop = asyncio.get_running_loop()
    with _lock:
        pool = _pools.get(loop)
        if pool is None:
            pool = _pools[loop] = _LoopChannels(loop)
    return pool.get(options)


def _stamp(path: Path | None) -> _Stamp:
    """What changes when a file is replaced. Whether it can be read is seen when the channel is opened."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size)
