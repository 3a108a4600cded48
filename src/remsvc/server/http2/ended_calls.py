"""Calls that have ended while their callers have not ended their side: what is still due, and how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from remsvc.http2 import engine
from remsvc.http2.engine import Engine, EngineError, Header, StreamGoneError

# A call that has ended waits for its caller to end its side as well.
_LINGER_SECONDS = 5.0
# A caller that is still sending commands hears why they are refused when it has sent them, or sends none for
# so long: grpc.aio takes an answer that comes between two of them for an error of its own, INTERNAL.
_HOLD_SECONDS = 0.3


@dataclass(slots=True)
class _EndedCall:
    """One of them.

    Attributes:
        since: when it ended.
        unacknowledged: bytes that its caller sent, and may send again only when its side has ended.
        answer: headers that are to be sent.
    """

    since: float
    unacknowledged: int
    answer: Sequence[Header] = ()


class EndedCalls:
    """Those of one connection, by their streams.

    Args:
        loop: tells the time.
        flush_soon: called where there is something to send.

    Attributes:
        engine: of the connection; None where that has not begun, or has ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, flush_soon: Callable[[], None]) -> None:
        self._loop = loop
        self._flush_soon = flush_soon
        self._calls: dict[int, _EndedCall] = {}
        self.engine: Engine | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._calls)

    def __contains__(self, stream: int) -> bool:
        """Whether the call of a stream is one of them."""
        return stream in self._calls

    def add(self, stream: int, unacknowledged: int) -> None:
        """A call has ended; so many bytes that its caller sent were not acknowledged."""
        self._calls[stream] = _EndedCall(self._loop.time(), unacknowledged)

    def drop(self, stream: int, size: int, *, last: bool) -> None:
        """Data came, of no use, but within the window that its caller had; ``last``: and no more will."""
        self._calls[stream].unacknowledged += size
        if last:
            self._send(stream)

    def answer(self, stream: int, headers: Sequence[Header], *, sending: bool) -> None:
        """Send an answer that is headers alone; ``sending``: to a caller that may be sending on."""
        if (call := self._calls.get(stream)) is None:
            return
        call.answer = headers
        if sending:
            self._send_later(stream)
        else:
            self._send(stream)

    def _send(self, stream: int) -> None:
        """Send an answer that was not sent yet."""
        call = self._calls.get(stream)
        if call is None or not call.answer or self.engine is None:
            return
        headers, call.answer = call.answer, ()
        self._flush_soon()
        try:
            self.engine.respond(stream, headers, end=True)
        except StreamGoneError:
            return

    def _send_later(self, stream: int, before: int = -1) -> None:
        """The same, where nothing has come on its stream since there were so many bytes of it."""
        call = self._calls.get(stream)
        if call is None or not call.answer:
            return
        if call.unacknowledged == before or self._loop.time() - call.since > _LINGER_SECONDS:
            self._send(stream)
        else:
            self._loop.call_later(_HOLD_SECONDS, self._send_later, stream, call.unacknowledged)

    def forget(self, stream: int) -> int:
        """Its stream is closed; how many bytes of it were not acknowledged."""
        return self._calls.pop(stream).unacknowledged

    def clear(self) -> None:
        """Forget all of them: nothing can be sent any more."""
        self.engine = None
        self._calls.clear()

    def reset_late(self, now: float, within: int, answer_timeout: float) -> None:
        """End the streams whose callers have had their time.

        Args:
            now: the loop's time.
            within: the stream whose data came as a part of a frame; 0 for none.
            answer_timeout: seconds that a caller has to take an answer.
        """
        if not self._calls or self.engine is None:
            return
        for stream, call in list(self._calls.items()):
            if now - call.since < _LINGER_SECONDS:
                break  # the others have ended later
            waiting = self.engine.queued(stream)
            if (waiting or stream == within) and now - call.since < answer_timeout:
                continue
            try:
                self.engine.reset(stream, engine.CANCEL if waiting else engine.NO_ERROR)
            except StreamGoneError:
                self._acknowledge(stream, self.forget(stream))
        self._flush_soon()

    def _acknowledge(self, stream: int, size: int) -> None:
        assert self.engine is not None
        try:
            self.engine.acknowledge(stream, size)
        except EngineError:
            return  # told by its own event
