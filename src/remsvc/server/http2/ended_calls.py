"""Keeps calls that have ended until their callers have ended their side, too, and decides when to insist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from remsvc.http2 import engine
from remsvc.http2.engine import EngineError, Header, Http2Engine, StreamGoneError

# A call that has ended waits for its caller to end its side as well.
_LINGER_SECONDS = 5.0
# A caller that is still sending commands hears why they are refused when it has sent them, or sends none for
# so long, at the latest after the second: grpc.aio takes a status that comes while it sends for an error of
# its own, INTERNAL. The first is longer than a busy client pauses between two commands of a list.
_HOLD_SECONDS, _LONGEST_HOLD_SECONDS = 0.3, 2.0


@dataclass(slots=True)
class _EndedCall:
    """A call that has ended, and whose caller may still be sending.

    Attributes:
        since: when it ended.
        unacknowledged: bytes that its caller sent, and may send again only when its side has ended.
        heard: when its caller has sent something last.
        last: headers that are to be sent, with which its answer ends.
        begun: whether others were sent before.
    """

    since: float
    unacknowledged: int
    heard: float
    last: Sequence[Header] = ()
    begun: bool = False


class EndedCalls:
    """The calls of one connection that have ended, by their streams.

    Args:
        loop: tells the time.
        flush_soon: called where there is something to send.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, flush_soon: Callable[[], None]) -> None:
        self._loop = loop
        self._flush_soon = flush_soon
        self._calls: dict[int, _EndedCall] = {}
        self._engine: Http2Engine | None = None  # before the connection has begun, and after its end

    def start(self, engine: Http2Engine) -> None:
        """The connection has begun."""
        self._engine = engine

    def __len__(self) -> int:
        """How many there are."""
        return len(self._calls)

    def __contains__(self, stream: int) -> bool:
        """Whether the call of a stream is one of them."""
        return stream in self._calls

    @property
    def hold_back(self) -> bool:
        """Whether a caller has not been told yet how its call has ended."""
        return any(call.last for call in self._calls.values())

    def add(self, stream: int, unacknowledged: int) -> None:
        """A call has ended; so many bytes that its caller sent were not acknowledged."""
        now = self._loop.time()
        self._calls[stream] = _EndedCall(now, unacknowledged, now)

    def drop(self, stream: int, size: int, *, last: bool) -> None:
        """Data came, of no use, but within the window that its caller had; ``last``: and no more will."""
        call = self._calls[stream]
        call.unacknowledged += size
        call.heard = self._loop.time()
        # One that has filled its window sends nothing more before it is told.
        if last or call.unacknowledged >= engine.WINDOW:
            self._send(stream)

    def answer(self, stream: int, last: Sequence[Header], *, begun: bool, sending: bool) -> None:
        """Send what ends an answer.

        Args:
            last: the headers that do.
            begun: whether others were sent before; else these are all of it.
            sending: whether its caller may be sending on; then it is told when it has stopped.
        """
        if (call := self._calls.get(stream)) is None:
            return
        call.last, call.begun = last, begun
        if sending and call.unacknowledged < engine.WINDOW:
            self._loop.call_later(_HOLD_SECONDS, self._send_if_quiet, stream, call)
        else:
            self._send(stream)

    def send_all(self) -> None:
        """Tell all callers what they have not been told yet: the connection is about to end."""
        for stream in list(self._calls):
            self._send(stream)

    def _send(self, stream: int) -> None:
        """End an answer that was not ended yet."""
        call = self._calls.get(stream)
        if call is None or not call.last or self._engine is None:
            return
        headers, call.last = call.last, ()
        self._flush_soon()
        try:
            if call.begun:
                self._engine.finish(stream, headers)
            else:
                self._engine.respond(stream, headers, end=True)
        except StreamGoneError:
            return

    def _send_if_quiet(self, stream: int, call: _EndedCall) -> None:
        """The same, where its caller sends nothing for a while; else it is looked again."""
        if self._calls.get(stream) is not call or not call.last:
            return
        now = self._loop.time()
        left = min(call.heard + _HOLD_SECONDS, call.since + _LONGEST_HOLD_SECONDS) - now
        if left <= 0:
            self._send(stream)
        else:
            self._loop.call_later(left, self._send_if_quiet, stream, call)

    def forget(self, stream: int) -> int:
        """Its stream is closed; how many bytes of it were not acknowledged."""
        return self._calls.pop(stream).unacknowledged

    def clear(self) -> None:
        """Forget all of them: nothing can be sent any more."""
        self._engine = None
        self._calls.clear()

    def reset_late(self, now: float, within: int, answer_timeout: float) -> None:
        """End the streams whose callers have had their time.

        Args:
            now: the loop's time.
            within: the stream whose data came as a part of a frame; 0 for none.
            answer_timeout: seconds that a caller has to take an answer.
        """
        if not self._calls or self._engine is None:
            return
        for stream, call in list(self._calls.items()):
            if now - call.since < _LINGER_SECONDS:
                break  # the others have ended later
            waiting = self._engine.queued(stream)
            if (waiting or stream == within) and now - call.since < answer_timeout:
                continue
            try:
                self._engine.reset(stream, engine.CANCEL if waiting else engine.NO_ERROR)
            except StreamGoneError:
                self._acknowledge(stream, self.forget(stream))
        self._flush_soon()

    def _acknowledge(self, stream: int, size: int) -> None:
        assert self._engine is not None
        try:
            self._engine.acknowledge(stream, size)
        except EngineError:
            return  # told by its own event
