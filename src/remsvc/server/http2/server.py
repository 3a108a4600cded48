"""The server's side of the HTTP/2 transport, as the rest of the server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from remsvc.errors import TransportEndedError
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Methods
from remsvc.server.http2.connections import Connections
from remsvc.server.http2.listener import Http2Listener
from remsvc.server.tls.config import TlsConfig

# After the grace: calls are cancelled, and their commands killed.
_END_SECONDS = 5.0


class Http2Server:
    """Carries calls with our own HTTP/2: a :class:`~remsvc.server.transport.ServerTransport`.

    Args:
        limits: on connections and calls.
        calls: answers what comes.
        methods: that can be called.
        tls: what the next connection is encrypted with; None for plaintext.
        asks_owner: whether it matters which user of this host connects.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        calls: Calls,
        methods: Methods,
        tls: Callable[[], TlsConfig | None],
        *,
        asks_owner: bool = False,
    ) -> None:
        self._connections = Connections(limits, calls, methods)
        self._listener = Http2Listener(
            self._connections, tls, limits.handshake_timeout, asks_owner=asks_owner
        )
        self._watching: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> str:
        address = await self._listener.listen(host, port)
        self._watching = asyncio.get_running_loop().create_task(self._connections.watch_over())
        return address

    async def ended(self) -> None:
        assert self._watching is not None
        watching = [self._watching, *self._listener.accepting]
        done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
        error = None if (task := done.pop()).cancelled() else task.exception()
        raise TransportEndedError("the HTTP/2 transport has ended by itself") from error

    async def stop(self, grace: float, at_once: asyncio.Future[str]) -> None:
        await self._listener.close()
        draining = asyncio.ensure_future(self._connections.drain(grace))
        either: set[asyncio.Future[Any]] = {draining, at_once}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        await asyncio.wait([draining])
        await self._connections.end(_END_SECONDS)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
