"""A connection that was accepted: what comes in and goes out, and when it is closed.

::

    connecting ──► session (greeting, open, going away) ──► closing ──► closed
        │                          │                           │
        └──────────────────────────┴───────────────────────────┴──► cut

``closing`` waits for the peer to have read the last words. ``cut`` is closed at once: a deadline was missed,
nothing was taken, or the place is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable
from contextlib import suppress
from typing import Protocol

from remsvc.http2 import engine
from remsvc.http2.engine import EngineError
from remsvc.http2.input_turns import InputTurns
from remsvc.http2.paced_input import PacedInput
from remsvc.server.caller import ANONYMOUS
from remsvc.server.http2.session import ServerSession
from remsvc.server.http2.shared import Shared
from remsvc.server.http2.tls import speaks_http2
from remsvc.server.http2.waiting_answers import WaitingAnswers
from remsvc.server.identity.authentication import NO_CERTIFICATE

_logger = logging.getLogger("remsvc.server")

_WRITE_BUFFER = 256 * 1024
_SHUTTING_DOWN = "the server is shutting down"
_CLOSING = "this connection is being closed: call again on another one"
# The last words are lost where a connection is closed before its peer has stopped sending.
_CLOSE_SECONDS, _CLOSE_BYTES = 1.0, 256 * 1024


class _Connections(Protocol):
    """All connections, and who looks after them: :class:`~remsvc.server.http2.connections.Connections`."""

    def note_identity(self, connection: ServerConnection, identity: str) -> None: ...
    def note_cut(self, connection: ServerConnection, reason: str) -> None: ...
    def discard(self, connection: ServerConnection) -> None: ...


class ServerConnection(PacedInput):
    """One accepted connection: moves bytes between its transport and its session, and closes it.

    Args:
        shared: by all connections.
        connections: all of them, to which it belongs.
        peer: its other end, as gRPC writes it.
        network: the part of its peer's address that stands for one customer of a provider.
        owner: the user of this host who has connected; None where that was not asked, or is not known.

    Attributes:
        made: whether it was connected, with TLS if that is spoken.
        opened: when it was accepted, in the loop's time.
    """

    def __init__(
        self, shared: Shared, connections: _Connections, peer: str, network: str, owner: int | None
    ) -> None:
        super().__init__(shared.input_buffer)
        self._shared = shared
        self._connections = connections
        self.loop = asyncio.get_running_loop()
        self.peer = peer
        self.network = network
        self.opened = self.loop.time()
        self.made = False
        self._connecting: asyncio.Task[None] | None = None  # connects it; None where that is done
        self._owner = owner
        self._session = ServerSession(shared, peer, self._flush_soon, self._note_identity)
        self._answer_timeout = shared.limits.answer_timeout
        self._is_cut = False
        self._writable = True
        self._stuck_at, self._stuck_since = 0, 0.0  # where it is not writable
        self._flushing = False
        self._closing: asyncio.TimerHandle | None = None
        self._discarded = 0

    # For those who look after all connections

    @property
    def identity(self) -> str:
        """Of the first caller who was verified on it; empty for a stranger's."""
        return self._session.identity

    @property
    def answers(self) -> WaitingAnswers:
        """Those that wait to be taken, or to be written."""
        return self._session.answers

    @property
    def busy(self) -> bool:
        """Whether a verified caller's call is in progress on it."""
        return self._session.busy

    @property
    def owes(self) -> bool:
        """Whether a verified caller waits for an answer, or has not taken all of one."""
        session = self._session
        return self.busy or session.holds_back or (bool(self.identity) and self.answers.written > 0)

    def check(self, now: float) -> None:
        """Look whether its peer keeps it waiting; from time to time."""
        session = self._session
        if not session.is_running:
            return
        if (error := session.overdue(now)) is not None:
            self.close(error)
            return
        if not self._writable and self._is_stuck(now):
            self.cut("took nothing of what was sent to it")
            return
        if self.answers.written or self.answers.has_waiters:
            self._recount()  # the system may have taken it meanwhile, without a word
        if self._writable and not session.is_there(now):
            self.cut("")
            return
        idle = not session.calls and now - session.idle_since > self._shared.limits.connection_idle
        if idle and not session.is_going_away:
            self.go_away()
        session.end_streams(now)

    def _is_stuck(self, now: float) -> bool:
        """Whether the peer has taken nothing from its socket for too long."""
        assert self._transport is not None
        if (waiting := self._transport.get_write_buffer_size()) < self._stuck_at:
            self._stuck_at, self._stuck_since = waiting, now
        return now - self._stuck_since > self._answer_timeout

    def note_connecting(self, connecting: asyncio.Task[None]) -> None:
        """This task connects it, until :meth:`note_connected`."""
        self._connecting = connecting

    def note_connected(self) -> None:
        """Nothing connects it any more: it was connected, or never will be."""
        self._connecting = None

    # Of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._is_cut:  # while it was being connected
            transport.abort()
            return
        self.made = True
        self._transport = transport
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and not speaks_http2(tls):
            transport.abort()
            return
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        self._session.start(
            self._shared.shown_certificates.of(tls) if tls is not None else NO_CERTIFICATE, self._owner
        )
        self._flush()

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing is None:
            super().buffer_updated(nbytes)
            return
        self._discarded += nbytes
        if self._discarded > _CLOSE_BYTES:
            self.cut("")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._rest = b""
        if self._closing is not None:
            self._closing.cancel()
        self._session.end()
        self._session.recount(0)
        self._connections.discard(self)

    def pause_writing(self) -> None:
        self._writable = False
        assert self._transport is not None
        self._stuck_at, self._stuck_since = self._transport.get_write_buffer_size(), self.loop.time()

    def resume_writing(self) -> None:
        self._writable = True
        self._flush()

    # What comes in

    @property
    def _turns(self) -> InputTurns:
        """Callers have turns of their own: no crowd of strangers makes them wait."""
        return self._shared.turns if self._session.identity else self._shared.strangers_turns

    @property
    def shares_turns(self) -> Hashable:
        """All of one identity's have a turn together; of those who show none, all of one network's."""
        identity = self._session.identity
        return (identity,) if identity and identity != ANONYMOUS else self.network

    def _take(self, data: memoryview) -> int:
        session = self._session
        try:
            taken = session.take(data)
        except EngineError as error:
            self._fail(error)
            return len(data)
        # Calls that have begun take their first step before what is sent soon: their answers go with it.
        self._flush_soon()
        if session.finished or session.closed is not None:
            self._close_finished()  # at once: what comes after it is of no use
        return taken if session.is_running else len(data)

    def _close_finished(self) -> None:
        if self._session.closed is not None:
            self._close_soon(patient=self._session.closed == engine.NO_ERROR)
        else:
            self.close()

    def _note_identity(self, identity: str) -> None:
        self._connections.note_identity(self, identity)

    # What goes out

    def _flush_soon(self) -> None:
        """Send what there is, together with what else will be there in a moment."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what there is, as far as the peer takes it."""
        self._flushing = False
        transport, session = self._transport, self._session
        if transport is None or not session.is_running:
            return
        if self._writable:
            try:
                data = session.to_send()
            except EngineError as error:
                self._fail(error)
                return
            if data:
                transport.write(data)
        if session.finished or session.closed is not None:
            self._close_finished()
        self._recount()

    def _recount(self) -> None:
        if self._transport is not None:
            self._session.recount(self._transport.get_write_buffer_size())

    # How it ends

    def go_away(self) -> None:
        """Take no more calls; close when those that are here have ended."""
        self._session.go_away(_CLOSING)
        self._flush()

    def shut_down(self) -> None:
        """The same, because the server is shutting down."""
        self._session.go_away(_SHUTTING_DOWN)
        self._flush()

    def close(self, error: int = engine.NO_ERROR) -> None:
        """Say why, and close."""
        if self._transport is None:
            self.cut("")
        elif self._closing is None:
            self._transport.write(self._session.goaway(error))
            self._close_soon(patient=error == engine.NO_ERROR)

    def _fail(self, why: EngineError) -> None:
        """The peer broke the rules, or did too much: it is told, and closed."""
        _logger.debug("connection ended: %s", why)
        if self._transport is not None and self._closing is None:
            self._transport.write(self._session.goaway_for(why))
            self._close_soon(patient=False)

    def _close_soon(self, *, patient: bool) -> None:
        """Close once the peer has read the last words, or has had time to.

        Args:
            patient: whether to let it take the answers to its calls first, as long as they may wait.
        """
        if self._transport is None or self._closing is not None:
            return
        latest = self._session.idle_since + self._answer_timeout if patient else 0.0
        self._closing = self.loop.call_later(_CLOSE_SECONDS, self._cut_when_taken, latest)
        self._session.end()
        self._recount()
        self._rest = b""
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            with suppress(OSError):  # the peer has gone already
                self._transport.write_eof()
        else:
            self._transport.close()

    def _cut_when_taken(self, latest: float) -> None:
        waiting = self._transport is not None and self._transport.get_write_buffer_size() > 0
        if waiting and self.loop.time() < latest:
            self._closing = self.loop.call_later(_CLOSE_SECONDS, self._cut_when_taken, latest)
        else:
            self.cut("")

    def cut(self, reason: str) -> None:
        """End it at once. ``reason`` is for the log; empty where nobody needs to know."""
        self._is_cut = True
        if reason:
            self._connections.note_cut(self, reason)
        self._connections.discard(self)  # at once: its place may be needed
        if self._transport is not None:
            self._transport.abort()
        elif self._connecting is not None:
            self._connecting.cancel()
