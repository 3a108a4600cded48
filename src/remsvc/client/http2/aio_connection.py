"""A connection for asyncio, and the calls on it, for which coroutines wait.

Connections take in what they receive by turns. So a server that sends very much, or very many small frames,
holds up neither the other connections of the event loop nor their calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from remsvc.client.http2.call import ClientCall
from remsvc.client.http2.endpoint import ConnectError, Endpoint
from remsvc.client.http2.session import ClientSession
from remsvc.client.http2.tls import NO_HTTP2, PROTOCOL
from remsvc.client.transport import CallError
from remsvc.http2.input_turns import InputTurns
from remsvc.http2.paced_input import PacedInput
from remsvc.status import Metadata, StatusCode

_INPUT_BYTES = 32 * 1024
_WRITE_BUFFER = 256 * 1024
_IDLE_SECONDS = 1800.0


class _Loop:
    """What all connections of an event loop share: the buffer that they receive into, and the turns."""

    def __init__(self) -> None:
        self.input_buffer = memoryview(bytearray(_INPUT_BYTES))
        self.turns = InputTurns()


# Clients are made apart from each other, and yet those of one event loop must not hold each other up. So what
# they share is found by the loop, and goes with it.
_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()


class AsyncCall(ClientCall):
    """A call that a coroutine waits for."""

    __slots__ = ("_waiter",)

    def __init__(
        self,
        method: str,
        requests: Iterable[bytes],
        metadata: Metadata,
        *,
        single: bool,
        deadline: float | None,
    ) -> None:
        super().__init__(method, requests, metadata, single=single, deadline=deadline)
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Wait until something has happened to this call."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Running:
    """A block in which a call runs: begins it, and ends it at its deadline or at the block's end."""

    __slots__ = ("_call", "_connection", "_timer")

    def __init__(self, connection: ClientConnection, call: ClientCall) -> None:
        self._connection = connection
        self._call = call
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        call, connection = self._call, self._connection
        connection.begin(call)
        if call.deadline is not None and not call.ended:
            left = call.deadline - time.monotonic()
            self._timer = connection.loop.call_later(left, self._expire)

    def __exit__(self, *exception: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connection.end(self._call, CallError(StatusCode.CANCELLED, "Cancelled"))

    def _expire(self) -> None:
        self._connection.end(self._call, CallError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))


class ClientConnection(PacedInput):
    """One connection to a server, as asyncio's protocol: passes bytes between the socket and a session.

    Attributes:
        settled: done when the server has sent its settings; fails where no connection came about.
        lost: done when the connection is closed.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint, connections: set[ClientConnection]
    ) -> None:
        self._shared = _loops.get(loop) or _loops.setdefault(loop, _Loop())
        super().__init__(self._shared.input_buffer)
        self.loop = loop
        self.settled: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._connections = connections
        self._tls = endpoint.tls is not None
        self._session = ClientSession(
            scheme=endpoint.scheme,
            authority=str(endpoint.target),
            keepalive=endpoint.keepalive,
            now=time.monotonic(),
        )
        self._writable = True
        self._flushing = False
        self._tick: asyncio.TimerHandle | None = None
        self._busy = False
        self._idle_since = time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether calls may begin on this connection."""
        return not self._session.going_away

    @property
    def room(self) -> int:
        """How many more calls would begin at once; below 0: how many wait until others end."""
        return self._session.room

    def hand_over(self, most: int) -> int:
        """Have at most so many waiting calls begin on another connection; returns how many do."""
        return self._session.hand_over(most)

    # Calls

    def begin(self, call: ClientCall) -> None:
        """Begin a call."""
        self._session.begin(call, time.monotonic())
        if not self._busy:
            self._busy = True
            self._look_after()
        self._flush_soon()

    def read(self, call: ClientCall) -> bytes | None:
        """The call's next answer, where it is here already, else None."""
        message = self._session.read(call)
        if message is not None:
            self._flush_soon()
        return message

    def end(self, call: ClientCall, error: CallError) -> None:
        """End a call; does nothing where it has ended already."""
        if not call.ended:
            self._session.end(call, error)
            self._flush_soon()

    def close(self, reason: str, code: StatusCode = StatusCode.UNAVAILABLE) -> None:
        """Let every call fail for this reason, and close the connection."""
        words = self._session.say_goodbye()
        self._session.close(reason, code)
        if self._transport is not None:
            self._transport.write(words)
            self._transport.close() if self._writable else self._transport.abort()
        elif not self.lost.done():
            self.lost.set_result(None)

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        if self._session.ended is not None:
            transport.abort()
            return
        if self._tls and transport.get_extra_info("ssl_object").selected_alpn_protocol() != PROTOCOL:
            self._fail(NO_HTTP2)
            return
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        self._flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport.close()  # Python 3.10's TLS takes it for open where the server has closed it
        self._transport = None
        self._rest = b""
        self._connections.discard(self)
        if self._tick is not None:
            self._tick.cancel()
        self._session.close(f"Socket closed: {exc}" if exc is not None else "Socket closed")
        self._settle()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._flush()

    # What comes in

    @property
    def _turns(self) -> InputTurns:
        return self._shared.turns

    def _take(self, data: memoryview) -> int:
        session = self._session
        taken = session.take(data, time.monotonic())
        self._flush()
        if not self.settled.done() and (session.settled or session.ended is not None):
            self._settle()
        return taken if session.ended is None else len(data)

    def cut(self, reason: str) -> None:
        """End the connection at once."""
        self._fail(reason)

    def _settle(self) -> None:
        if self.settled.done():
            return
        if self._session.ended is None:
            self.settled.set_result(None)
        else:
            self.settled.set_exception(ConnectError(self._session.ended))
            self.settled.exception()  # it may be that nobody waits for it any more

    # What goes out

    def _flush_soon(self) -> None:
        """Send in the loop's next round, so that what is written until then goes out in the same packet."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what waits to be sent, as much as the server takes now."""
        self._flushing = False
        transport, session = self._transport, self._session
        if transport is None:
            return
        if not self._writable:
            if session.ended is not None:  # nothing that waits is of use to anybody
                transport.abort()
                self._settle()
            elif session.going_away and all(call.ended for call in session.calls.values()):
                self.close("the server is going away")
            return
        if data := session.to_send(time.monotonic()):
            transport.write(data)
        if session.ended is not None:
            transport.close()
            self._settle()
        elif data and session.has_more:
            self._flush_soon()
        elif session.idle and session.going_away:
            self.close("the server is going away")

    def _fail(self, reason: str) -> None:
        self._session.close(reason)
        self._settle()
        if self._transport is not None:
            self._transport.abort()

    # Looking after it

    def _look_after(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        now = time.monotonic()
        self._busy = not self._session.idle
        if not self._busy:
            # A connection that nobody uses is closed after some time.
            if now - self._idle_since >= _IDLE_SECONDS:
                self.close("idle")
                return
            self._tick = self.loop.call_later(_IDLE_SECONDS, self._look_after)
            return
        self._idle_since = now
        again = self._session.tick(now)
        self._flush()
        if self._transport is not None:
            self._tick = self.loop.call_later(max(again - now, 0.05), self._look_after)
