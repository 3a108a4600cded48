"""The calls of one connection, from the peer's frames to their ends. It has no input or output of its own.

::

    connecting ──► greeting ──► open ──► going away ──► ended

``connecting`` lasts until it is started; ``greeting``, until the peer has acknowledged our settings. ``going
away`` lets calls finish and takes no new ones; ``ended`` has given up every call that was left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from remsvc.http2 import engine
from remsvc.http2.engine import EngineError, Header, Http2Engine, Http2Event, StreamGoneError
from remsvc.http2.frame_credit import EARNED_BY_CALL, EARNED_PER_BYTE, FrameCredit, earned_by_data
from remsvc.http2.frames import TURN_WORK, FrameMeter
from remsvc.http2.headers import decode_timeout, is_grpc
from remsvc.server.caller import Caller
from remsvc.server.http2.call import Http2Call
from remsvc.server.http2.ended_calls import EndedCalls
from remsvc.server.http2.opening_windows import OpeningWindows
from remsvc.server.http2.request_head import read_head
from remsvc.server.http2.shared import Shared
from remsvc.server.http2.unsent import AT_LEAST
from remsvc.server.http2.waiting_answers import WaitingAnswers
from remsvc.server.identity.authentication import NO_CERTIFICATE, Evidence, ShownCertificate
from remsvc.status import StatusCode

# Beyond what is permitted a list of headers is still read, so that its caller can be told.
_REFUSED_HEADER_BYTES = 48 * 1024
# Of all streams together, once a caller was verified; a stranger's have one stream's window together.
_WINDOW = 16 * 1024 * 1024
# Calls that were given up before their answer, by whatever the peer did: so many at once, then so many a
# second. A stranger has none that would be worth it.
_GIVEN_UP, _GIVEN_UP_BY_STRANGERS, _GIVEN_UP_PER_SECOND = 2000.0, 100.0, 100.0
_ORDINARY_ENDS = (engine.NO_ERROR, engine.CANCEL)
# What is taken in of a stranger at a turn: two calls.
_STRANGERS_TURN_WORK = 20
# A client that vanished without a word is noticed within a minute, and its commands are ended.
_PING_AFTER_SECONDS, _PONG_SECONDS = 40.0, 20.0


class ServerSession:
    """Takes in what a peer sends, begins its calls, ends them, and bounds what they may cost the server.

    Args:
        shared: by all connections.
        peer: its other end, as gRPC writes it.
        flush_soon: called where there is something to send.
        note_identity: called with the identity of the first caller who is verified. Raises
            :class:`RefusedError` where that has too many connections.

    Attributes:
        is_running: whether it was started and has not ended.
        loop, limits, unread: of all connections.
        calls: those in progress, by their streams.
        identity: of the first caller who was verified; empty for a stranger.
        answers: those that wait to be taken, or to be written.
        windows: of the peer, for the answers of its calls.
        idle_since: when the last call ended, in the loop's time.
        closed: the error code with which the peer, or the engine, has closed the connection; None before.
        finished: whether it takes no new calls, and of the others nothing is left to be done.
    """

    def __init__(
        self,
        shared: Shared,
        peer: str,
        flush_soon: Callable[[], None],
        note_identity: Callable[[str], None],
    ) -> None:
        self._shared = shared
        self.flush_soon = flush_soon
        self._note_identity = note_identity
        self.is_running = False
        self.loop = asyncio.get_running_loop()
        self.limits = shared.limits
        self.unread = shared.unread
        self.peer = peer
        self.calls: dict[int, Http2Call] = {}
        self.identity = ""
        self.answers = WaitingAnswers(shared.unsent, self.loop)
        self.windows = OpeningWindows(self.loop, self.answers)
        self.closed: int | None = None
        self.finished = False
        self._certificate = NO_CERTIFICATE
        self._owner: int | None = None
        self._engine: Http2Engine | None = None
        self._meter = FrameMeter(preface=True)
        self._heard = self.idle_since = self._accepted = self.loop.time()
        self._credit = FrameCredit(self._heard)
        self._given_up = 0.0
        self._settled = False
        self._last_stream = 0
        self._pinged = 0.0
        self._waits_since, self._waits_frame = 0.0, -1
        self._ended_calls = EndedCalls(self.loop, flush_soon)
        self._why_going_away = ""  # as calls are told that come nevertheless

    def start(self, certificate: ShownCertificate, owner: int | None) -> None:
        """Begin: TLS, if that is spoken, is done, and the peer has shown this certificate.

        Args:
            owner: the user of this host who has connected; None where that is not known.
        """
        limits = self.limits
        self.is_running = True
        self._certificate, self._owner = certificate, owner
        self._engine = Http2Engine(
            server=True,
            max_streams=limits.max_streams,
            header_bytes=limits.max_metadata_bytes,
            header_bytes_taken=limits.max_metadata_bytes + _REFUSED_HEADER_BYTES,
            max_headers=limits.max_headers,
            connection_window=engine.WINDOW,
            resets=(max(1000, limits.max_streams), 100),
        )
        self._ended_calls.start(self._engine)
        self.windows.start(self._engine)
        self._heard = self.loop.time()

    @property
    def is_going_away(self) -> bool:
        """Whether it takes no more calls."""
        return bool(self._why_going_away)

    @property
    def busy(self) -> bool:
        """Whether a verified caller's call is in progress on it."""
        return any(call.caller is not None for call in self.calls.values())

    @property
    def holds_back(self) -> bool:
        """Whether a verified caller has not been told yet how a call of his has ended."""
        return bool(self.identity) and self._ended_calls.hold_back

    # What comes in

    def take(self, data: memoryview) -> int:
        """Take in as much of what came as one turn permits.

        Returns:
            How many bytes that were.

        Raises:
            EngineError: the peer broke the rules, or did too much.
        """
        if self._engine is None:
            return len(data)
        work = TURN_WORK if self.identity else _STRANGERS_TURN_WORK
        stop = self._meter.measure(data, work)
        events = self._engine.receive(data[:stop])
        self._heard = self.loop.time()
        for event in events:
            self._on_event(event)
        self._spend()
        return stop

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

    def _on_event(self, event: Http2Event) -> None:
        kind = type(event)
        if kind is engine.DataReceived:
            self._on_data(event.stream_id, event.data, event.end_stream)  # type: ignore[attr-defined]
        elif kind is engine.RequestReceived:
            self._on_request(event.stream_id, event.headers, event.end_stream)  # type: ignore[attr-defined]
        elif kind is engine.StreamClosed:
            self._on_closed(event.stream_id, event.error_code)  # type: ignore[attr-defined]
        elif kind is engine.TrailersReceived:
            self._on_data(event.stream_id, b"", True)  # type: ignore[attr-defined]
        elif kind is engine.WindowUpdated:
            self.windows.note(event.stream_id)  # type: ignore[attr-defined]
        elif kind is engine.SettingsReceived:
            self.windows.note_settings(event.settings)  # type: ignore[attr-defined]
        elif kind is engine.SettingsAcknowledged:
            self._settled = True
        elif kind is engine.ConnectionClosed:
            self.closed = event.error_code  # type: ignore[attr-defined]

    def _on_request(self, stream: int, headers: tuple[Header, ...], half_closed: bool) -> None:
        self._last_stream = stream
        head = read_head(headers)
        method = self._shared.methods.get(head.path)
        call = Http2Call(
            self,
            stream,
            method,
            Evidence.shown(head.authorization, self._certificate, self._owner),
            head.metadata_bytes,
            half_closed=half_closed,
        )
        self.calls[stream] = call
        self._credit.earn(EARNED_BY_CALL)
        if head.verb != b"POST":
            self._refuse_http(call, b"405")
        elif not is_grpc(head.content_type):
            self._refuse_http(call, b"415")
        elif method is None:
            call.end(StatusCode.UNIMPLEMENTED, "Method not found!")
        elif self._why_going_away:
            call.end(StatusCode.UNAVAILABLE, self._why_going_away)
        else:
            if head.timeout:
                try:
                    call.limit(decode_timeout(head.timeout))
                except ValueError as error:
                    call.end(StatusCode.INVALID_ARGUMENT, str(error))
                    return
            call.note_task(self._shared.answering.answer(call, method))

    def _refuse_http(self, call: Http2Call, status: bytes) -> None:
        call.abandon()
        self.finish(call, ((b":status", status),), begun=False)

    def _on_data(self, stream: int, data: bytes, last: bool) -> None:
        if (call := self.calls.get(stream)) is not None:
            call.feed(data, last=last)
            self._credit.earn(earned_by_data(len(data)))
        elif stream in self._ended_calls:
            self._ended_calls.drop(stream, len(data), last=last)
        elif data:
            self.acknowledge(stream, len(data))

    def _on_closed(self, stream: int, error: int) -> None:
        unacknowledged = 0
        if (call := self.calls.pop(stream, None)) is not None:
            call.abandon()
            self._given_up += 1
            unacknowledged = call.give_up_unacknowledged()
        elif stream in self._ended_calls:
            unacknowledged = self._ended_calls.forget(stream)
            if error not in _ORDINARY_ENDS:  # its peer broke a rule, after the answer
                self._given_up += 1
        if unacknowledged:
            self.acknowledge(stream, unacknowledged)
        if not self.calls:
            self.idle_since = self.loop.time()
            self._note_finished()

    def _note_finished(self) -> None:
        self.finished = bool(self._why_going_away) and not self.calls and not self._ended_calls

    # For its calls. Where the peer has gone meanwhile, that is noticed by its own event.

    def earn(self, credit: float) -> None:
        """Something came that was worth its frames."""
        self._credit.earn(credit)

    def verify(self, caller: Caller) -> None:
        """A caller was verified: the streams have their whole window from now on.

        Raises:
            RefusedError: his identity has too many connections.
        """
        if not self.identity:
            self._note_identity(caller.identity)
            self.identity = caller.identity
            self.widen(0, _WINDOW)

    def has_room(self, call: Http2Call, size: int) -> bool:
        """Whether an answer of so many bytes may be written now."""
        return self._engine is None or self.answers.has_room(self._engine.queued(call.stream), size)

    def grant(self, call: Http2Call) -> int:
        """Bytes that the call may write next; they are reserved for it."""
        if self._engine is None:
            return AT_LEAST
        queued, sendable = self._engine.queued(call.stream), self._engine.sendable(call.stream)
        return self.answers.grant(call, queued, sendable)

    def begin(self, call: Http2Call, headers: tuple[Header, ...]) -> None:
        """Send the headers of an answer."""
        if self._engine is not None:
            try:
                self._engine.respond(call.stream, headers)
            except StreamGoneError:
                return

    def send(self, stream: int, data: bytes) -> None:
        """Send data."""
        if self._engine is not None:
            try:
                self._engine.send(stream, data)
            except StreamGoneError:
                return
            self._credit.earn(len(data) * EARNED_PER_BYTE)
            self.answers.count(self.answers.written + len(data))
            self.flush_soon()

    def finish(self, call: Http2Call, last: Sequence[Header], *, begun: bool) -> None:
        """Send what ends an answer, or all of it where it has not ``begun``, and forget the call."""
        self._forget(call)
        sending = call.streams and not call.half_closed
        self._ended_calls.answer(call.stream, last, begun=begun, sending=sending)

    def _forget(self, call: Http2Call) -> None:
        if self.calls.pop(call.stream, None) is not None:
            self._ended_calls.add(call.stream, call.give_up_unacknowledged())
        if not self.calls:
            self.idle_since = self.loop.time()
        self.flush_soon()

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
            except StreamGoneError:
                return
            self.flush_soon()

    # What goes out

    def to_send(self) -> bytes:
        """All that may be sent now. Raises :class:`EngineError` where the connection has to end."""
        if self._engine is None:
            return b""
        data = self._engine.to_send()
        for event in self._engine.late_events():
            self._on_event(event)
        return data

    def recount(self, buffered: int) -> None:
        """Look how much of what was written was not taken; ``buffered`` bytes of it wait on the wire."""
        self.answers.count((self._engine.queued() if self._engine is not None else 0) + buffered)
        self.windows.note_sent()
        if self.answers.has_waiters:
            self.answers.wake()

    # How it ends

    def go_away(self, why: str) -> None:
        """Take no more calls; those that come nevertheless are told why."""
        if self._engine is None:
            return
        has_begun, self._why_going_away = bool(self._why_going_away), why
        if has_begun:
            return
        self._note_finished()
        if not self.finished:
            self._engine.announce_shutdown()

    def goaway(self, error: int) -> bytes:
        """What says that it ends now, and why; of what waits to be sent, as much as the peer lets us send."""
        if self._engine is None:
            return b""
        self._ended_calls.send_all()
        try:
            held = self._engine.to_send()
            self._engine.terminate(error)
            return held + self._engine.to_send()
        except EngineError:
            return b""

    def goaway_for(self, why: EngineError) -> bytes:
        """The same for a peer that broke the rules, or did too much: its engine says no more."""
        return engine.last_words(self._last_stream, why.code)

    def end(self) -> None:
        """Nothing more will come: every call that is left is given up."""
        self.is_running = False
        self._engine = None
        self.windows.end()
        for call in list(self.calls.values()):
            call.abandon()
        self.calls.clear()
        self._ended_calls.clear()

    def overdue(self, now: float) -> int | None:
        """The error code for a peer that keeps the server waiting; None for one that does not."""
        if not self._settled and now - self._accepted > self.limits.handshake_timeout:
            return engine.SETTINGS_TIMEOUT
        if self._waits_since and now - self._waits_since > self.limits.header_timeout:
            return engine.ENHANCE_YOUR_CALM
        return None

    def is_there(self, now: float) -> bool:
        """Whether the peer was heard of; one that is silent is asked, and has a while to answer."""
        if self._engine is None or now - self._heard <= _PING_AFTER_SECONDS:
            return True
        if self._pinged < self._heard:
            self._pinged = now
            self._engine.ping()
            self.flush_soon()
        return now - self._pinged <= _PONG_SECONDS

    def end_streams(self, now: float) -> None:
        """End the streams of calls that have ended, where the peer does not."""
        self._ended_calls.reset_late(now, self._meter.within_data_of, self.limits.answer_timeout)
        self._note_finished()
