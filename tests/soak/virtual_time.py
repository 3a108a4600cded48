"""An event loop whose clock is moved by hand and whose sockets are in memory.

So minutes pass in no time, and sessions repeat exactly.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import types
from collections.abc import Generator
from typing import Any

from tests.soak.memory_transport import MemorySocket

_TICK = 1e-5
_Address = tuple[str, int]


class _NothingHappens(selectors.SelectSelector):
    """There is nothing outside the loop that it could wait for."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own.

    Whoever moves the clock must have something to do in every turn of the loop: one that waits for its
    clock alone would wait for ever.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        self._arrivals: dict[int, asyncio.Queue[tuple[MemorySocket, _Address]]] = {}  # by port
        super().__init__(_NothingHappens())

    def time(self) -> float:
        self._now += _TICK  # what works for long sees time pass, and so its time slice end
        return self._now

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self._now += seconds

    def arrive(self, port: int, accepted: MemorySocket, address: _Address) -> None:
        """Let somebody connect to this port, where somebody listens."""
        if (arrivals := self._arrivals.get(port)) is not None:
            arrivals.put_nowait((accepted, address))

    # For who listens

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]

    async def sock_accept(self, sock: socket.socket) -> Any:
        port = sock.getsockname()[1]
        try:
            return await self._arrivals.setdefault(port, asyncio.Queue()).get()
        except asyncio.CancelledError:  # nobody listens any more
            del self._arrivals[port]
            raise

    async def connect_accepted_socket(self, protocol_factory: Any, sock: Any, **_: Any) -> Any:
        protocol = protocol_factory()
        transport = sock.connect(self, protocol)
        try:
            await turns(2)  # until the protocol was told
        except BaseException:
            transport.close()
            raise
        return transport, protocol


@types.coroutine
def turns(count: int) -> Generator[None, None, None]:
    """Let the loop turn so many times."""
    for _ in range(count):
        yield
