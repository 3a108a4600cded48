"""The state of a connection to a server: its calls, and how each of them ends. It reads and writes no
socket.

::

    greeting ──► open ──► going away ──► ended

``greeting`` ends when the server has sent its settings. In ``going away`` calls may finish, but none begins.
When the connection has ``ended``, every call that was left has failed.
"""

from __future__ import annotations

from collections import deque

from remsvc.client.http2.call import ClientCall
from remsvc.client.transport import PING_TIMEOUT, CallError
from remsvc.http2 import engine
from remsvc.http2.engine import EngineError, Http2Engine, Http2Event, StreamGoneError
from remsvc.http2.frame_credit import (
    EARNED_BY_CALL,
    EARNED_BY_MESSAGE,
    EARNED_PER_BYTE,
    FrameCredit,
    earned_by_data,
)
from remsvc.http2.frames import TURN_WORK, FrameMeter
from remsvc.http2.messages import PREFIX_BYTES, prefix
from remsvc.status import StatusCode

# A server is told the first limit; lists of headers up to the second are still accepted.
_HEADER_BYTES, _HEADER_BYTES_TAKEN, _MAX_HEADERS = 16 * 1024, 32 * 1024, 128
# How many bytes a server may send, before they are read, on a stream with long answers, and on how many
# streams at a time; all others have the usual window. The connection's window is so large that even 2,000
# streams whose answers nobody reads leave room for the next one.
_WIDE_WINDOW, _MOST_WIDE = 1024 * 1024, 32
_WINDOW = _MOST_WIDE * _WIDE_WINDOW + 2048 * engine.WINDOW
# A message that is longer than half of the usual window must be allowed to arrive before anybody can read
# it, as it can be read only as a whole.
_LONG = engine.WINDOW // 2
_MOST_BUFFERED = 256 * 1024 * 1024
# So many bytes of a call's requests may wait until the server takes them.
_MOST_QUEUED = 64 * 1024

_GOING_AWAY = "the server is going away"

# How a stream that a server has reset ends its call: PROTOCOL-HTTP2.md, "Errors".
_BY_RESET = {
    engine.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    engine.CANCEL: StatusCode.CANCELLED,
    engine.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    engine.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}


class NotBegunError(CallError):
    """The connection has ended before the call began on it: the call can be made on another connection."""

    def __init__(self) -> None:
        super().__init__(StatusCode.UNAVAILABLE, _GOING_AWAY, sent=False)


class ClientSession:
    """The client's end of one HTTP/2 connection, without input or output.

    Args:
        scheme: ``http`` or ``https``.
        authority: the server, as its calls name it.
        keepalive: seconds of silence after which the server is asked whether it is there, while calls are
            open.
        now: seconds of the monotonic clock, here and everywhere.

    Attributes:
        settled: whether the server has sent its settings.
        ended: why the connection has ended; None as long as it lives.
        going_away: whether no new calls begin.
        calls: the calls that have begun, by their streams.
    """

    def __init__(self, *, scheme: str, authority: str, keepalive: float, now: float) -> None:
        self._scheme, self._authority = scheme.encode("ascii"), authority.encode("ascii")
        self._keepalive = keepalive
        self._engine = Http2Engine(
            server=False,
            max_streams=0,
            header_bytes=_HEADER_BYTES,
            header_bytes_taken=_HEADER_BYTES_TAKEN,
            max_headers=_MAX_HEADERS,
            connection_window=_WINDOW,
        )
        self._meter = FrameMeter(preface=False)
        self._credit = FrameCredit(now)
        self.settled = False
        self.ended: str | None = None
        self.going_away = False
        self.calls: dict[int, ClientCall] = {}
        self._waiting: deque[ClientCall] = deque()
        self._writing: dict[int, ClientCall] = {}
        self._reason = ""
        self._begun = False  # whether anything has come
        self._buffered = 0
        self._wide: set[int] = set()
        self._heard = now
        self._pinged = 0.0
        self._last_words = b""

    # Calls

    @property
    def idle(self) -> bool:
        """Whether no call is open."""
        return not self.calls and not self._waiting

    @property
    def room(self) -> int:
        """How many more calls the server takes now; below 0: how many wait until others end."""
        return self._engine.peer_max_streams - len(self.calls) - len(self._waiting)

    def hand_over(self, most: int) -> int:
        """Have at most so many waiting calls begin elsewhere, the oldest first; returns how many do."""
        count = min(most, len(self._waiting))
        for _ in range(count):
            self._waiting.popleft().fail(NotBegunError())
        return count

    def begin(self, call: ClientCall, now: float) -> None:
        """Begin a call, as soon as the server takes one more."""
        if self.ended is not None or self.going_away:
            call.fail(NotBegunError())
            return
        self._waiting.append(call)
        self._begin_waiting(now)

    def end(self, call: ClientCall, error: CallError) -> None:
        """End a call early; does nothing where it has ended already."""
        if call.stream == 0:
            if call in self._waiting:
                self._waiting.remove(call)
            error = CallError(error.code, error.details, error.trailers, sent=False)
        was_open = not call.ended
        call.fail(error)
        self._release(call)
        if was_open and call.stream in self.calls:
            self._reset(call, engine.CANCEL)

    def read(self, call: ClientCall) -> bytes | None:
        """The call's next answer, where it is here already, else None."""
        message = call.take()
        if message is not None and self.ended is None:
            self._credit.earn(EARNED_BY_MESSAGE)
            if call.buffered and len(message) > _LONG:
                self._release(call)
            self._acknowledge(call, min(call.unacknowledged, PREFIX_BYTES + len(message)))
            self._let_more_come(call)
        return message

    # What comes in

    def take(self, data: memoryview, now: float) -> int:
        """Take in as much of what was received as one turn permits; returns how many bytes that were."""
        if self.ended is not None:
            return len(data)
        if not self._begun:
            self._begun = True
            if (foreign := _foreign(bytes(data[:12]))) is not None:
                self.close(foreign)
                return len(data)
        stop = self._meter.measure(data, TURN_WORK)
        self._heard = now
        try:
            for event in self._engine.receive(data[:stop]):
                self._on_event(event)
            self._credit.spend(self._meter.frames, now)
        except EngineError as error:
            self._break(error)
        else:
            self._begin_waiting(now)
        return stop

    def to_send(self, now: float) -> bytes:
        """All that may be sent now. Ask :attr:`has_more` afterwards."""
        if self.ended is not None:
            words, self._last_words = self._last_words, b""
            return words
        try:
            data = self._step()
            while self._begin_waiting(now):  # in the places of those whose end was sent
                data += self._step()
        except EngineError as error:
            self._break(error)
            return self.to_send(now)
        self._credit.earn(len(data) * EARNED_PER_BYTE)
        return data

    def _step(self) -> bytes:
        for call in list(self._writing.values()):
            self._write(call)
        data = self._engine.to_send()
        for event in self._engine.late_events():
            self._on_event(event)
        return data

    @property
    def has_more(self) -> bool:
        """Whether :meth:`to_send` gives more if asked again."""
        if self.ended is not None:
            return bool(self._last_words)
        return any(self._engine.queued(stream) < _MOST_QUEUED for stream in self._writing)

    def tick(self, now: float) -> float:
        """Ping a silent server, and give up one that does not answer; returns when to call this again."""
        if self.ended is not None or self.idle:
            return now + self._keepalive
        if self._pinged > self._heard:
            if now - self._pinged >= PING_TIMEOUT:
                self.close(f"keepalive: a ping was not answered within {PING_TIMEOUT:g} s")
            return self._pinged + PING_TIMEOUT
        if now - self._heard >= self._keepalive:
            try:
                self._engine.ping()
            except EngineError as error:
                self._break(error)
            self._pinged = now
            return now + PING_TIMEOUT
        return self._heard + self._keepalive

    # How it ends

    def close(self, reason: str, code: StatusCode = StatusCode.UNAVAILABLE) -> None:
        """The connection has ended: every call that is left fails for this reason."""
        if self.ended is not None:
            return
        self.ended = f"{reason}: {self._reason}" if self._reason else reason
        self.going_away = True
        for call in self.calls.values():
            call.fail(CallError(code, self.ended))
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.fail(NotBegunError())
        self.calls.clear()
        self._writing.clear()

    def say_goodbye(self) -> bytes:
        """The last bytes to send before the connection is closed."""
        if self.ended is not None:
            return b""
        try:
            self._engine.terminate(engine.NO_ERROR)
            return self._engine.to_send()
        except EngineError:
            return b""

    def _break(self, why: EngineError) -> None:
        """End the connection and tell the server why: it broke the rules, or did too much."""
        self.close(f"the server broke the rules of HTTP/2: {why}")
        self._last_words = engine.last_words(0, why.code)

    # Events

    def _on_event(self, event: Http2Event) -> None:
        kind = type(event)
        if kind is engine.DataReceived:
            self._on_data(event.stream_id, event.data)  # type: ignore[attr-defined]
            if event.end_stream:  # type: ignore[attr-defined]
                self._finish(event.stream_id, ())  # type: ignore[attr-defined]
        elif kind is engine.TrailersReceived:
            self._finish(event.stream_id, event.headers)  # type: ignore[attr-defined]
        elif kind is engine.ResponseReceived:
            self._on_response(event)
        elif kind is engine.StreamClosed:
            self._on_closed(event)
        elif kind is engine.SettingsReceived:
            self.settled = True
        elif kind is engine.GoAwayReceived:
            self.going_away = True
            if event.error_code or event.debug_data:  # type: ignore[attr-defined]
                text = event.debug_data[:200].decode("utf-8", "replace")  # type: ignore[attr-defined]
                self._reason = f"GOAWAY {event.error_code} {text}".rstrip()  # type: ignore[attr-defined]
            waiting, self._waiting = self._waiting, deque()
            for call in waiting:
                call.fail(NotBegunError())
        elif kind is engine.InformationalResponseReceived:
            if (asked := self.calls.get(event.stream_id)) is not None:  # type: ignore[attr-defined]
                asked.inform()
                self._end_if_over(asked)
        elif kind is engine.ConnectionClosed:
            ours = event.error_code if not self._reason else 0  # type: ignore[attr-defined]
            self.close(
                f"the server broke the rules of HTTP/2: error {ours}" if ours else "the connection was closed"
            )

    def _on_response(self, event: Http2Event) -> None:
        call = self.calls.get(event.stream_id)  # type: ignore[attr-defined]
        if call is not None and not call.ended:
            call.respond(event.headers, last=event.end_stream)  # type: ignore[attr-defined]
            self._end_if_over(call)

    def _on_data(self, stream: int, data: bytes) -> None:
        call = self.calls.get(stream)
        size = len(data)
        if call is None or call.ended:
            if size:
                self._engine.acknowledge(stream, size)
            return
        goes_on = call.feed(data)
        self._credit.earn(earned_by_data(size))
        if goes_on:
            self._let_more_come(call)
        else:
            self._acknowledge(call, call.unacknowledged)
            self._end_if_over(call)

    def _let_more_come(self, call: ClientCall) -> None:
        """Let the server send more of a call's answers, where much of their window is used up."""
        if call.unacknowledged <= _LONG or self.ended is not None:
            return
        if not call.wide and len(self._wide) < _MOST_WIDE:
            call.widen()
            self._wide.add(call.stream)
            try:
                self._engine.widen(call.stream, _WIDE_WINDOW)
            except StreamGoneError:
                return
        if call.wanted > _LONG and not call.has_answer:
            size = call.unacknowledged
            self._buffered += size
            self._acknowledge(call, size, unread=True)
            if self._buffered > _MOST_BUFFERED:
                self.end(call, CallError(StatusCode.RESOURCE_EXHAUSTED, "too many long messages are coming"))

    def _finish(self, stream: int, trailers: tuple[engine.Header, ...]) -> None:
        call = self.calls.get(stream)
        if call is not None and not call.ended:
            call.finish(trailers)
            self._end_if_over(call)

    def _on_closed(self, event: Http2Event) -> None:
        call = self.calls.pop(event.stream_id, None)  # type: ignore[attr-defined]
        if call is None:
            return
        self._writing.pop(call.stream, None)
        self._wide.discard(call.stream)
        self._acknowledge(call, call.unacknowledged)
        self._release(call)
        if not call.ended:
            call.fail(self._closed_error(call, event.error_code, event.local_error))  # type: ignore[attr-defined]
        if not self.calls and self.ended is None and self._engine.window <= _WINDOW // 2:
            # The engine never gives back what frames of streams took that were reset while they arrived.
            # Before the window is used up, another connection is made.
            self.going_away = True

    def _closed_error(self, call: ClientCall, code: int, local: Exception | None) -> CallError:
        if local is not None and self.going_away:
            # Its headers were not sent, as the server had said meanwhile that it takes no more.
            return (
                NotBegunError() if call.single else CallError(StatusCode.UNAVAILABLE, _GOING_AWAY, sent=False)
            )
        if local is not None:
            return CallError(
                StatusCode.RESOURCE_EXHAUSTED, f"the call's metadata cannot be sent: {local}", sent=False
            )
        status = _BY_RESET.get(code, StatusCode.INTERNAL)
        # RFC 9113, section 8.7: with this code nothing was done for the call.
        refused = code == engine.REFUSED_STREAM and not call.heard
        text = "the server did not take the call" if refused else "the server broke the call off"
        return CallError(status, f"{text}: RST_STREAM {code}", sent=not refused)

    def _end_if_over(self, call: ClientCall) -> None:
        """Reset the stream of a call that has ended, as the server may still wait for requests."""
        if call.ended and call.stream in self.calls:
            self._release(call)
            self._reset(call, engine.NO_ERROR if call.error is None else engine.CANCEL)

    # What goes out

    def _begin_waiting(self, now: float) -> bool:
        """Begin as many waiting calls as the server takes; returns whether there were any."""
        waiting = self._waiting
        begun = False
        while waiting and self.settled and not self.going_away:
            if len(self.calls) >= self._engine.peer_max_streams:
                break
            call = waiting.popleft()
            if call.ended:
                continue
            try:
                stream = self._engine.request(call.headers(self._scheme, self._authority, now))
            except StreamGoneError:
                self.going_away = True
                call.fail(NotBegunError())
                continue
            call.begin_on(stream)
            self.calls[stream] = self._writing[stream] = call
            self._credit.earn(EARNED_BY_CALL)
            self._write(call)
            begun = True
        return begun

    def _write(self, call: ClientCall) -> None:
        """Give the engine as many requests of a call as there is room for."""
        try:
            while call.requests is not None and self._engine.queued(call.stream) < _MOST_QUEUED:
                request = call.next_request()
                last = call.requests is None
                data = b"" if request is None else prefix(len(request)) + request
                self._engine.send(call.stream, data, end=last)
        except StreamGoneError:
            call.drop_requests()  # how it has ended is told by its own event
        except Exception as error:  # noqa: BLE001  of whatever makes the requests: for its caller
            call.drop_requests(error)
            self.end(call, CallError(StatusCode.CANCELLED, "its requests have failed"))
        if call.requests is None:
            self._writing.pop(call.stream, None)

    def _reset(self, call: ClientCall, error: int) -> None:
        self._writing.pop(call.stream, None)
        if self.ended is None:
            try:
                self._engine.reset(call.stream, error)
            except StreamGoneError:
                self.calls.pop(call.stream, None)
                self._wide.discard(call.stream)

    def _acknowledge(self, call: ClientCall, size: int, *, unread: bool = False) -> None:
        if size and self.ended is None:
            call.acknowledge(size, unread=unread)
            try:
                self._engine.acknowledge(call.stream, size)
            except EngineError as error:
                self._break(error)

    def _release(self, call: ClientCall) -> None:
        self._buffered -= call.release()


def _foreign(first: bytes) -> str | None:
    """The error for a peer that does not speak HTTP/2, in the words of gRPC; None where it may speak it."""
    if first.startswith(b"HTTP/"):
        status = first[9:12]
        told = f" (HTTP status {status.decode('ascii')})" if len(status) == 3 and status.isdigit() else ""
        return f"Trying to connect an http1.x server{told}"
    if first.startswith((b"\x15\x03", b"\x16\x03")):
        return "Socket closed: the server speaks TLS"
    return None
