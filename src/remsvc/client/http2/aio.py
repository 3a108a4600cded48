"""The HTTP/2 transport for asyncio: which connection a call begins on, and when another one is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable

from remsvc.client.http2.aio_connection import AsyncCall, ClientConnection, Running
from remsvc.client.http2.attempts import Attempts
from remsvc.client.http2.dial import dial
from remsvc.client.http2.endpoint import (
    ATTEMPT_SECONDS,
    BEGIN_ATTEMPTS,
    CLOSED,
    TIMED_OUT,
    ConnectError,
    Endpoint,
    shown_address,
)
from remsvc.client.http2.session import NotBegunError
from remsvc.client.http2.tls import handshake_reason
from remsvc.client.options import HTTP2, ConnectionOptions
from remsvc.client.transport import Answer, CallError, Readiness
from remsvc.status import Metadata, StatusCode
from remsvc.time_limit import TimeLimit

# With TLS, a server gets so many seconds to say that it closes the connection as well.
_CLOSE_SECONDS = 0.2
# After so many answers of one stream, other tasks of the event loop get their turn.
_ANSWERS_AT_ONCE = 32
# A server takes a limited number of calls at a time on one connection; many proxies take 100. Calls that
# last, such as watches, would keep all others waiting. So there are up to so many connections.
_MOST_CONNECTIONS = 16


class AsyncHttp2Transport:
    """Carries asyncio's calls by our own HTTP/2: an :class:`~remsvc.client.transport.AsyncTransport`.

    All calls share one connection as long as the server takes that many on one. For calls that have to
    wait, another connection is made, and they move to it.

    Raises:
        ConfigurationError: the options cannot be used.
    """

    name = HTTP2

    def __init__(self, options: ConnectionOptions) -> None:
        self._loop = asyncio.get_running_loop()
        self._endpoint = Endpoint.of(options)
        self._ready: list[ClientConnection] = []  # on which calls begin; the oldest comes first
        self._connections: set[ClientConnection] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._attempts = Attempts()
        self._closed = False

    @property
    def readiness(self) -> Readiness:
        if self._closed:
            return Readiness.CLOSED
        if self._usable() is not None:
            return Readiness.READY
        return Readiness.UNTRIED if self._attempts.failure is None else Readiness.BROKEN

    async def unary(
        self,
        method: str,
        request: bytes,
        *,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool = False,
    ) -> Answer:
        deadline = None if timeout is None else time.monotonic() + timeout
        for attempt in range(BEGIN_ATTEMPTS):
            connection = self._best() or await self._connected(deadline, wait_for_ready)
            call = AsyncCall(method, (request,), metadata, single=True, deadline=deadline)
            with Running(connection, call):
                while not call.ended:
                    await call.wait()
            if not isinstance(call.error, NotBegunError) or attempt == BEGIN_ATTEMPTS - 1:
                break
        return call.result()

    async def stream(
        self, method: str, requests: Iterable[bytes], *, timeout: float | None, metadata: Metadata
    ) -> AsyncGenerator[bytes, None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        unsent = iter(requests)
        for attempt in range(BEGIN_ATTEMPTS):
            connection = self._best() or await self._connected(deadline, False)
            call = AsyncCall(method, unsent, metadata, single=False, deadline=deadline)
            with Running(connection, call):
                given = 0
                while True:
                    if (answer := connection.read(call)) is not None:
                        yield answer
                        given += 1
                        if given % _ANSWERS_AT_ONCE == 0:
                            await asyncio.sleep(0)
                    elif call.ended:
                        break
                    else:
                        await call.wait()
            if not isinstance(call.error, NotBegunError) or attempt == BEGIN_ATTEMPTS - 1:
                break
        call.raise_error()

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        connections = list(self._connections)
        for connection in connections:
            connection.close(CLOSED, StatusCode.CANCELLED)
        if connections:
            await asyncio.wait([connection.lost for connection in connections], timeout=_CLOSE_SECONDS)
        for connection in connections:
            connection.cut(CLOSED)

    def _usable(self) -> ClientConnection | None:
        """A connection on which calls may begin, even if they have to wait there; or None."""
        if not all(connection.usable for connection in self._ready):
            self._ready = [connection for connection in self._ready if connection.usable]
        return self._ready[0] if self._ready else None

    def _best(self) -> ClientConnection | None:
        """The connection on which a call begins at once, or else waits with the fewest others."""
        first = self._usable()
        if first is None or first.room > 0:
            return first
        best = next((one for one in self._ready if one.room > 0), None)
        if best is None:
            self._make_room()
            best = max(self._ready, key=lambda one: one.room)
        return best

    def _make_room(self) -> None:
        """Have another connection made, unless one is being made or there are enough."""
        if self._connecting is None and len(self._ready) < _MOST_CONNECTIONS:
            self._connecting = self._loop.create_task(self._connect(self._attempts.pause()))

    def _spread(self) -> None:
        """Move waiting calls to a connection with room, and have another one made for the rest."""
        if self._usable() is None:
            return
        room = max(self._ready[-1].room, 0)
        for connection in self._ready[:-1]:
            if connection.room < 0 < room:
                room -= connection.hand_over(min(room, -connection.room))
        if any(connection.room < 0 for connection in self._ready):
            self._make_room()

    async def _connected(self, deadline: float | None, wait_for_ready: bool) -> ClientConnection:
        """A connection for a call; makes one where there is none. Raises :class:`CallError`."""
        while True:
            if self._closed:
                raise CallError(StatusCode.UNAVAILABLE, CLOSED, sent=False)
            if (connection := self._best()) is not None:
                return connection
            if self._connecting is None:
                pause = self._attempts.pause()
                if pause and not wait_for_ready:
                    self._attempts.raise_failure()
                self._connecting = self._loop.create_task(self._connect(pause))
            task = self._connecting
            patience = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            done, _ = await asyncio.wait([task], timeout=patience)
            if not done:
                raise CallError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", sent=False)
            if not task.cancelled():
                task.result()  # raises what nobody has expected: it must not be lost
                if not wait_for_ready:
                    self._attempts.raise_failure()

    async def _connect(self, pause: float) -> None:
        """Make a connection, after a pause, or note why it could not be made."""
        try:
            if pause:
                await asyncio.sleep(pause)
            with TimeLimit(ATTEMPT_SECONDS):
                connection = await self._establish()
        except ConnectError as error:
            self._attempts.failed(str(error))
        except TimeoutError:
            self._attempts.failed(TIMED_OUT)
        else:
            self._ready.append(connection)
            self._attempts.succeeded()
        finally:
            self._connecting = None
        self._spread()

    async def _establish(self) -> ClientConnection:
        endpoint = self._endpoint
        connected = await dial(endpoint)
        connection = ClientConnection(self._loop, endpoint, self._connections)
        try:
            peer = connected.getpeername()
        except OSError:
            peer = None
        try:
            await self._loop.create_connection(
                lambda: connection,
                sock=connected,
                ssl=endpoint.tls,
                server_hostname=endpoint.target.host.rstrip(".") if endpoint.tls is not None else None,
            )
            await connection.settled
        except BaseException as error:
            connection.close("the connection was not established")
            if isinstance(error, ConnectError | OSError):
                raise _located(error, peer) from error
            raise
        return connection


def _located(error: ConnectError | OSError, peer: object) -> ConnectError:
    """The error with the address to which no connection could be made."""
    reason = str(error) if isinstance(error, ConnectError) else handshake_reason(error)
    return ConnectError(f"{shown_address(peer)}: {reason}" if peer else reason)
