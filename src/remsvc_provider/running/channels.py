"""The pool of connections: one per event loop, server and credentials.

A triggerer runs thousands of triggers in one loop. They share a connection, so that each pays for no
TCP and TLS handshake of its own. A connection belongs to the loop it was made in, and is closed with it, or
some time after it was last used. One that is always in use has a limited life as well: who comes later gets a
new one, and the old one is closed once the last of its users has gone. Credentials are replaced, names lead
to other servers, and a triggerer runs for months.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakValueDictionary

from remsvc_provider.per_loop import PerLoop

if TYPE_CHECKING:
    import grpc.aio

    from remsvc.client.options import ConnectionOptions
    from remsvc.client.transport import AsyncTransport

KEPT_SECONDS = 600.0
"""How long a connection that nobody uses is kept for the next one."""
LIFE_SECONDS = 1800.0
"""How long a connection is given to new users."""
SWEEP_SECONDS = 60.0

_Stamp = tuple[int, int] | None
_Key = tuple["ConnectionOptions", tuple[_Stamp, ...]]


@dataclass(slots=True)
class _Pooled:
    """A connection that is shared."""

    transport: AsyncTransport
    made: float = field(default_factory=time.monotonic)
    users: int = 0
    unused_since: float = field(default_factory=time.monotonic)


class _LoopPool:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self._transports: dict[_Key, _Pooled] = {}
        self._outlived: list[_Pooled] = []  # others have taken their places
        # Channels are also given to callers who do not say when they have done. What is let go here stays
        # open as long as somebody has it, and closes itself then.
        self._channels: dict[_Key, tuple[grpc.aio.Channel, float]] = {}
        self._known: WeakValueDictionary[_Key, grpc.aio.Channel] = WeakValueDictionary()
        self._made: WeakKeyDictionary[grpc.aio.Channel, float] = WeakKeyDictionary()
        # asyncio.run() cancels all tasks before it closes the loop: this one then closes the connections.
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="remsvc-connections")

    @contextmanager
    def transport(self, options: ConnectionOptions) -> Iterator[AsyncTransport]:
        from remsvc.client.options import GRPC
        from remsvc.client.transport import Readiness
        from remsvc.client.transport_choice import chosen_transport, open_async_transport, over_channel

        if chosen_transport(options) == GRPC:
            yield over_channel(self.channel(options))
            return
        key = _key(options)
        pooled = self._transports.get(key)
        if pooled is None or pooled.transport.readiness is Readiness.CLOSED or _is_old(pooled.made):
            fresh = _Pooled(open_async_transport(options))
            if pooled is not None:
                self._outlived.append(pooled)
            pooled = self._transports[key] = fresh
        pooled.users += 1
        try:
            yield pooled.transport
        finally:
            pooled.users -= 1
            pooled.unused_since = time.monotonic()

    def channel(self, options: ConnectionOptions) -> grpc.aio.Channel:
        import grpc

        from remsvc.client.grpc_transport.channel import open_async_channel

        key = _key(options)
        channel = self._known.get(key)
        if (
            channel is None
            or channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
            or _is_old(self._made[channel])
        ):
            channel = self._known[key] = open_async_channel(options)
            self._made[channel] = time.monotonic()
        self._channels[key] = channel, time.monotonic()
        return channel

    async def _keep(self) -> None:
        try:
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                await self._sweep(time.monotonic() - KEPT_SECONDS)
        finally:
            for pooled in [*self._transports.values(), *self._outlived]:
                await pooled.transport.close()
            for channel in list(self._made):
                await channel.close()
            self._transports.clear()
            self._channels.clear()

    async def _sweep(self, before: float) -> None:
        """Let go what has not been used since then."""
        for key, (_, given) in list(self._channels.items()):
            if given < before:
                del self._channels[key]
        for key, pooled in list(self._transports.items()):
            if not pooled.users and pooled.unused_since < before:
                del self._transports[key]  # at once: nobody gets what is about to be closed
                self._outlived.append(pooled)
        for pooled in [pooled for pooled in self._outlived if not pooled.users]:
            self._outlived.remove(pooled)
            await pooled.transport.close()


_pools = PerLoop(_LoopPool)


def pooled_transport(options: ConnectionOptions) -> AbstractContextManager[AsyncTransport]:
    """The running loop's connection for these options, to be used in a ``with`` block. The pool closes it.

    A certificate or key file that was replaced counts as new credentials; the connection of the old ones
    stays for the calls that use it.

    Raises:
        RuntimeError: no event loop is running.
        RemSvcError: the options cannot be used, for example a file is missing.
    """
    return _pools.get().transport(options)


def pooled_channel(options: ConnectionOptions) -> grpc.aio.Channel:
    """As :func:`pooled_transport`, but always a channel of gRPC's: for those who make calls of their own."""
    return _pools.get().channel(options)


def _is_old(made: float) -> bool:
    return made < time.monotonic() - LIFE_SECONDS


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
