"""A connection that was accepted: what its peer may do on it, and what goes back.

::

    accepted ──► greeting ──► open ──► going away ──► closing ──► closed
       │            │           │           │            │
       └────────────┴───────────┴───────────┴────────────┴──► cut (whatever has a deadline and missed it)

``greeting`` ends when the peer has acknowledged our settings; ``going away`` lets calls finish and takes
no new ones; ``closing`` waits for the peer to have read the last words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remsvc.http2 import engine
from remsvc.http2.engine import Engine, EngineError, Event, Header, StreamGoneError
from remsvc.http2.frame_credit import EARNED_BY_CALL, EARNED_PER_BYTE, FrameCredit
from remsvc.http2.frames import TURN_WORK, FrameMeter
from remsvc.http2.headers import decode_timeout, is_grpc
from remsvc.http2.input_turns import InputTurns
from remsvc.server.authentication import NO_CERTIFICATE, Caller, Evidence
from remsvc.server.http2.call import Http2Call
from remsvc.server.http2.request_head import read_head
from remsvc.server.http2.tls import speaks_http2
from remsvc.server.http2.waiting_answers import WaitingAnswers
from remsvc.status import Status

if TYPE_CHECKING:
    from remsvc.server.http2.connections import Connections

_logger = logging.getLogger("remsvc.server")

# Beyond what is permitted a list of headers is still read, so that its caller can be told.
_REFUSED_HEADER_BYTES = 48 * 1024
# Of all streams together, once a caller was verified; a stranger's have one stream's window together.
_WINDOW = 16 * 1024 * 1024
_WRITE_BUFFER = 256 * 1024
# Calls that were given up before their answer, by whatever the peer did: so many at once, then so many a
# second. A stranger has none that would be worth it.
_GIVEN_UP, _GIVEN_UP_BY_STRANGERS, _GIVEN_UP_PER_SECOND = 2000.0, 100.0, 100.0
_ORDINARY_ENDS = (engine.NO_ERROR, engine.CANCEL)
# What is taken in of a stranger at a turn: two calls.
_STRANGERS_TURN_WORK = 20
# A client that vanished without a word is noticed within a minute, and its commands are ended.
_PING_AFTER_SECONDS, _PONG_SECONDS = 40.0, 20.0
# A call that has ended waits for its caller to end its side as well.
_LINGER_SECONDS = 5.0
# A caller that is still sending commands hears why they are refused when it has sent them, or sends none for
# so long: grpc.aio takes an answer that comes between two of them for an error of its own, INTERNAL.
_HOLD_SECONDS = 0.3
# The last words are lost where a connection is closed before its peer has stopped sending.
_CLOSE_SECONDS, _CLOSE_BYTES = 1.0, 256 * 1024


@dataclass(slots=True)
class _Over:
    """A call that has ended; its caller has not ended its side.

    Attributes:
        since: when it ended.
        unacknowledged: bytes that its caller sent, and may send again only when its side has ended.
        answer: headers that are to be sent.
    """

    since: float
    unacknowledged: int
    answer: Sequence[Header] = ()


class Connection(asyncio.BufferedProtocol):
    """One connection.

    Args:
        connections: all of them, and what they share.
        peer: its other end, as gRPC writes it.
        network: the part of its peer's address that stands for one customer of a provider.

    Attributes:
        calls: those in progress, by their streams.
        identity: of the first caller who was verified on it; empty for a stranger's.
        made: whether it was connected, with TLS if that is spoken.
        connecting: connects it; None where that is done.
        opened: when it was accepted, in the loop's time.
        answers: those that wait to be taken, or to be written.
    """

    def __init__(self, connections: Connections, peer: str, network: str) -> None:
        self._connections = connections
        self.loop = connections.loop
        self.limits = connections.limits
        self.unread = connections.unread
        self.peer = peer
        self.network = network
        self.certificate = NO_CERTIFICATE
        self.calls: dict[int, Http2Call] = {}
        self.identity = ""
        self.answers = WaitingAnswers(connections.unsent, self.loop)
        self.opened = self.loop.time()
        self.made = False
        self.connecting: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_cut = False
        self._engine: Engine | None = None
        self._meter = FrameMeter(preface=True)
        self._rest: bytes = b""
        self._credit = FrameCredit(self.opened)
        self._given_up = 0.0
        self._settled = False
        self._last_stream = 0
        self._heard = self._idle_since = self.opened
        self._pinged = 0.0
        self._waits_since, self._waits_frame = 0.0, -1
        self._over: dict[int, _Over] = {}  # until the peer has ended its side too
        self._writable = True
        self._stuck_at, self._stuck_since = 0, 0.0  # where it is not writable
        self._flushing = False
        self._going_away = False
        self._closing: asyncio.TimerHandle | None = None
        self._discarded = 0

    # Of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._is_cut:  # while it was being connected
            transport.abort()
            return
        self.made = True
        self._transport = transport
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            if not speaks_http2(tls):
                transport.abort()
                return
            self.certificate = self._connections.shown_certificates.of(tls)
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        limits = self.limits
        self._engine = Engine(
            server=True,
            max_streams=limits.max_streams,
            header_bytes=limits.max_metadata_bytes,
            header_bytes_taken=limits.max_metadata_bytes + _REFUSED_HEADER_BYTES,
            max_headers=limits.max_headers,
            connection_window=engine.WINDOW,
            resets=(max(1000, limits.max_streams), 100),
        )
        self._heard = self.loop.time()
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._connections.input_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._connections.input_buffer
        if self._closing is not None:
            self._discarded += nbytes
            if self._discarded > _CLOSE_BYTES:
                self.cut("")
            return
        if self._rest:  # Windows had a read under way when reading was paused
            self._rest += data[:nbytes]
            if len(self._rest) > 64 * len(data):
                self.cut("sends on although nothing is read")
            return
        if self._turns.may_take_at_once():
            self._take(data[:nbytes])
        else:
            self._rest = bytes(data[:nbytes])
            self._ask_for_turn()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._engine = None
        self._rest = b""
        if self._closing is not None:
            self._closing.cancel()
        for call in list(self.calls.values()):
            call.abandon()
        self.calls.clear()
        self._over.clear()
        self.answers.count(0)
        self.answers.wake(self.has_room)
        self._connections.discard(self)

    def pause_writing(self) -> None:
        self._writable = False
        assert self._transport is not None
        self._stuck_at, self._stuck_since = self._transport.get_write_buffer_size(), self.loop.time()

    def resume_writing(self) -> None:
        self._writable = True
        self.flush()

    # What comes in

    @property
    def _turns(self) -> InputTurns:
        """Callers have turns of their own: no crowd of strangers makes them wait."""
        return self._connections.turns if self.identity else self._connections.strangers_turns

    def _ask_for_turn(self) -> None:
        """Have the rest taken in when it is this connection's turn, and receive nothing more until then."""
        assert self._transport is not None
        self._transport.pause_reading()
        # All strangers of one network have a turn together.
        self._turns.ask(self, None if self.identity else self.network)

    def take_rest(self) -> None:
        """See :class:`~remsvc.http2.input_turns.InputTurns`."""
        if self._transport is None:
            return
        rest, self._rest = memoryview(self._rest), b""
        self._take(rest)
        if not self._rest and self._transport is not None:
            self._transport.resume_reading()

    def _take(self, data: memoryview) -> None:
        """Take in as much as one turn permits; the rest waits for the next one."""
        if self._engine is None or self._closing is not None:
            return
        meter = self._meter
        stop = meter.measure(data, 0, len(data), TURN_WORK if self.identity else _STRANGERS_TURN_WORK)
        try:
            events = self._engine.receive(data[:stop])
            self._heard = self.loop.time()
            for event in events:
                self._on_event(event)
            self._spend()
        except EngineError as error:
            self._fail(str(error))
            return
        if stop < len(data) and self._transport is not None and self._closing is None:
            self._rest = bytes(data[stop:])
            self._ask_for_turn()
        # Calls that have begun take their first step before what is sent soon: their answers go with it.
        self.flush_soon()

    def _spend(self) -> None:
        """Pay for the frames that came. Raises :class:`EngineError` where they carried too little."""
        now, frames = self._heard, self._meter.frames
        elapsed = self._credit.spend(frames, now)
        if self._given_up:
            self._given_up = max(self._given_up - elapsed * _GIVEN_UP_PER_SECOND, 0.0)
            if self._given_up > (_GIVEN_UP if self.identity else _GIVEN_UP_BY_STRANGERS):
                raise EngineError("too many calls that were given up")
        if not self._meter.waits:
            self._waits_since = 0.0
        elif not self._waits_since or not (self._meter.in_header_block or self._waits_frame == frames):
            self._waits_since, self._waits_frame = now, frames

    def earn(self, credit: float) -> None:
        """Something came that was worth its frames."""
        self._credit.earn(credit)

    def _on_event(self, event: Event) -> None:
        kind = type(event)
        if kind is engine.DataReceived:
            self._on_data(event.stream_id, event.data, event.end_stream)  # type: ignore[attr-defined]
        elif kind is engine.RequestReceived:
            self._on_request(event.stream_id, event.headers, event.end_stream)  # type: ignore[attr-defined]
        elif kind is engine.StreamClosed:
            self._on_closed(event.stream_id, event.error_code)  # type: ignore[attr-defined]
        elif kind is engine.TrailersReceived:
            self._on_data(event.stream_id, b"", True)  # type: ignore[attr-defined]
        elif kind is engine.SettingsAcknowledged:
            self._settled = True
        elif kind is engine.ConnectionClosed:
            self._close_soon(patient=event.error_code == engine.NO_ERROR)  # type: ignore[attr-defined]

    def _on_request(self, stream: int, headers: tuple[Header, ...], half_closed: bool) -> None:
        self._last_stream = stream
        head = read_head(headers)
        method = self._connections.methods.get(head.path)
        call = Http2Call(
            self,
            stream,
            method.name if method is not None else "",
            Evidence.shown(head.authorization, self.certificate),
            head.metadata_bytes,
            half_closed=half_closed,
            streams=method is not None and method.stream is not None,
            longest_message=self.limits.max_message_bytes,
        )
        self.calls[stream] = call
        self._credit.earn(EARNED_BY_CALL)
        if head.verb != b"POST":
            self._refuse_http(call, b"405")
        elif not is_grpc(head.content_type):
            self._refuse_http(call, b"415")
        elif method is None:
            call.end(Status.UNIMPLEMENTED, "Method not found!")
        elif self._going_away:
            call.end(Status.UNAVAILABLE, "the server is shutting down")
        else:
            if head.timeout:
                try:
                    call.limit(decode_timeout(head.timeout))
                except ValueError as error:
                    call.end(Status.INVALID_ARGUMENT, str(error))
                    return
            call.task = self._connections.answer(call, method)

    def _refuse_http(self, call: Http2Call, status: bytes) -> None:
        call.abandon()
        self.respond(call, ((b":status", status),))

    def _on_data(self, stream: int, data: bytes, last: bool) -> None:
        if (call := self.calls.get(stream)) is not None:
            call.feed(data, last=last)
            self._credit.earn(len(data) * EARNED_PER_BYTE)
        elif (over := self._over.get(stream)) is not None:
            # Its call has ended: this is of no use, but within the window that the peer had.
            over.unacknowledged += len(data)
            if last:
                self._tell(stream)
        elif data:
            self.acknowledge(stream, len(data))

    def _on_closed(self, stream: int, error: int) -> None:
        unacknowledged = 0
        if (call := self.calls.pop(stream, None)) is not None:
            call.abandon()
            self._given_up += 1
            unacknowledged, call.unacknowledged = call.unacknowledged, 0
        elif (over := self._over.pop(stream, None)) is not None:
            unacknowledged = over.unacknowledged
            if error not in _ORDINARY_ENDS:  # its peer broke a rule, after the answer
                self._given_up += 1
        if unacknowledged:
            self.acknowledge(stream, unacknowledged)
        if not self.calls:
            self._idle_since = self.loop.time()
            if self._going_away and not self._over:
                self.close()

    # What goes out. Where the peer has gone meanwhile, that is noticed by its own event.

    @property
    def busy(self) -> bool:
        """Whether a verified caller's call is in progress on it."""
        return any(call.caller is not None for call in self.calls.values())

    @property
    def owes(self) -> bool:
        """Whether a verified caller waits for an answer, or has not taken all of one."""
        return self.busy or (bool(self.identity) and self.answers.written > 0)

    def has_room(self, call: Http2Call, size: int) -> bool:
        """Whether an answer of so many bytes may be written now."""
        return self._engine is None or self.answers.has_room(self._engine.queued(call.stream), size)

    def begin(self, call: Http2Call, headers: tuple[Header, ...]) -> None:
        """Send the headers of an answer."""
        if self._engine is not None:
            with suppress(StreamGoneError, EngineError):
                self._engine.respond(call.stream, headers)

    def send(self, stream: int, data: bytes) -> None:
        """Send data."""
        if self._engine is not None:
            try:
                self._engine.send(stream, data)
            except (StreamGoneError, EngineError):
                return
            self._credit.earn(len(data) * EARNED_PER_BYTE)
            self.answers.count(self.answers.written + len(data))
            self.flush_soon()

    def respond(self, call: Http2Call, headers: Sequence[Header]) -> None:
        """Send an answer that is headers alone, and forget the call."""
        self._end(call)
        if (over := self._over.get(call.stream)) is None:
            return
        over.answer = headers
        if call.streams and not call.half_closed:
            self._tell_later(call.stream)
        else:
            self._tell(call.stream)

    def _tell(self, stream: int) -> None:
        """Send the answer to a call that has ended, where that was not done."""
        over = self._over.get(stream)
        if over is None or not over.answer or self._engine is None or self._closing is not None:
            return
        headers, over.answer = over.answer, ()
        with suppress(StreamGoneError, EngineError):
            self._engine.respond(stream, headers, end=True)
        self.flush_soon()

    def _tell_later(self, stream: int, before: int = -1) -> None:
        """The same, where of its side nothing has come since there were so many bytes of it."""
        over = self._over.get(stream)
        if over is None or not over.answer:
            return
        if over.unacknowledged == before or self.loop.time() - over.since > _LINGER_SECONDS:
            self._tell(stream)
        else:
            self.loop.call_later(_HOLD_SECONDS, self._tell_later, stream, over.unacknowledged)

    def finish(self, call: Http2Call, trailers: list[Header]) -> None:
        """Send what ends an answer, and forget the call."""
        if self._engine is not None:
            with suppress(StreamGoneError, EngineError):
                self._engine.finish(call.stream, trailers)
        self._end(call)

    def _end(self, call: Http2Call) -> None:
        if self.calls.pop(call.stream, None) is not None:
            self._over[call.stream] = _Over(self.loop.time(), call.unacknowledged)
            call.unacknowledged = 0
        if not self.calls:
            self._idle_since = self.loop.time()
        self.flush_soon()

    def verify(self, caller: Caller) -> None:
        """A caller was verified on it: its streams have their whole window from now on.

        Raises:
            RefusedError: his identity has too many connections.
        """
        if not self.identity:
            self._connections.note_identity(self, caller.identity)
            self.identity = caller.identity
            self.widen(0, _WINDOW)

    def acknowledge(self, stream: int, size: int) -> None:
        """Let the peer send as much again."""
        if self._engine is not None:
            try:
                self._engine.acknowledge(stream, size)
            except EngineError:
                return
            self.flush_soon()

    def widen(self, stream: int, window: int) -> None:
        """Let the peer send more of a stream at once, or (0) of all of them."""
        if self._engine is not None:
            try:
                self._engine.widen(stream, window)
            except (StreamGoneError, EngineError):
                return
            self.flush_soon()

    def flush_soon(self) -> None:
        """Send what there is, together with what else will be there in a moment."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what there is, as far as the peer takes it."""
        self._flushing = False
        transport, http2 = self._transport, self._engine
        if transport is None or http2 is None or self._closing is not None:
            return
        if self._writable:
            try:
                data = http2.to_send()
                if data:
                    transport.write(data)
                for event in http2.late_events():
                    self._on_event(event)
            except EngineError as error:
                self._fail(str(error))
                return
        self._recount()

    def _recount(self) -> None:
        """Look how much of what was written was not taken."""
        if self._engine is not None and self._transport is not None:
            self.answers.count(self._engine.queued() + self._transport.get_write_buffer_size())
            if self.answers.has_waiters:
                self.answers.wake(self.has_room)

    # How it ends

    def go_away(self) -> None:
        """Take no more calls; close when those that are here have ended."""
        if self._going_away or self._engine is None or self._closing is not None:
            return
        self._going_away = True
        if not self.calls and not self._over:
            self.close()
            return
        self._engine.announce_shutdown()
        self.flush()

    def close(self, error: int = engine.NO_ERROR) -> None:
        """Say why, and close."""
        if self._engine is None or self._transport is None:
            self.cut("")
            return
        if self._closing is not None:
            return
        try:
            self._engine.terminate(error)
            self._transport.write(self._engine.to_send())
        except EngineError:
            pass
        self._close_soon(patient=error == engine.NO_ERROR)

    def _fail(self, why: str) -> None:
        """The peer broke the rules, or did too much: it is told, and closed."""
        _logger.debug("connection ended: %s", why)
        if self._transport is not None and self._closing is None:
            self._transport.write(engine.last_words(self._last_stream, engine.ENHANCE_YOUR_CALM))
            self._close_soon(patient=False)

    def _close_soon(self, *, patient: bool) -> None:
        """Close once the peer has read the last words, or has had time to.

        Args:
            patient: whether to let it take the answers to its calls first, as long as they may wait.
        """
        if self._transport is None or self._closing is not None:
            return
        latest = self._idle_since + self.limits.answer_timeout if patient else 0.0
        self._closing = self.loop.call_later(_CLOSE_SECONDS, self._cut_when_taken, latest)
        for call in list(self.calls.values()):
            call.abandon()
        self.calls.clear()
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
        elif self.connecting is not None:
            self.connecting.cancel()

    def check(self, now: float) -> None:
        """Look whether its peer keeps it waiting; from time to time."""
        limits, http2 = self.limits, self._engine
        if http2 is None or self._closing is not None:
            return
        if not self._settled and now - self.opened > limits.handshake_timeout:
            self.close(engine.SETTINGS_TIMEOUT)
            return
        if self._waits_since and now - self._waits_since > limits.header_timeout:
            self.close(engine.ENHANCE_YOUR_CALM)
            return
        if not self._writable and self._is_stuck(now):
            self.cut("took nothing of what was sent to it")
            return
        if self.answers.written:
            self._recount()  # the system may have taken it meanwhile, without a word
        if now - self._heard > _PING_AFTER_SECONDS:
            if not self._pinged or self._pinged < self._heard:
                self._pinged = now
                http2.ping()
                self.flush()
            elif now - self._pinged > _PONG_SECONDS:
                self.cut("")
                return
        if not self.calls and now - self._idle_since > limits.connection_idle:
            self.go_away()
        self._check_over(now)

    def _is_stuck(self, now: float) -> bool:
        """Whether the peer has taken nothing from its socket for too long."""
        assert self._transport is not None
        if (waiting := self._transport.get_write_buffer_size()) < self._stuck_at:
            self._stuck_at, self._stuck_since = waiting, now
        return now - self._stuck_since > self.limits.answer_timeout

    def _check_over(self, now: float) -> None:
        """End the streams of calls that have ended, where the peer does not."""
        if not self._over:
            return
        within = self._meter.within_data_of
        for stream, over in list(self._over.items()):
            if now - over.since < _LINGER_SECONDS or self._engine is None:
                break  # the others have ended later
            waiting = self._engine.queued(stream)
            if (waiting or stream == within) and now - over.since < self.limits.answer_timeout:
                continue
            try:
                self._engine.reset(stream, engine.CANCEL if waiting else engine.NO_ERROR)
            except (StreamGoneError, EngineError):
                del self._over[stream]
        self.flush_soon()
