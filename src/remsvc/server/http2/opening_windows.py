"""Calls that wait until their callers' windows take enough for another answer to be worth its cost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remsvc.server.http2.unsent import AT_LEAST

if TYPE_CHECKING:
    from remsvc.http2.engine import Engine
    from remsvc.server.http2.call import Http2Call
    from remsvc.server.http2.waiting_answers import WaitingAnswers

_NEARLY_ALL = AT_LEAST // 2
# An answer for every few bytes that a window is opened by would cost far more than one for many: the sender's
# part in avoiding the silly window syndrome, RFC 1122, section 4.2.3.4.
_FEW_BYTES_AFTER_SECONDS = 0.1


class OpeningWindows:
    """The windows of one connection's calls. A call that waits costs nothing until its own window changes.

    Args:
        loop: of the connection.
        answers: of the connection: they say how much a call would be granted.

    Attributes:
        engine: of the connection; None where that has not begun, or has ended.
        waiting: the calls that wait, by their streams.
        behind: those of the streams on which an earlier answer has still to be sent.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, answers: WaitingAnswers) -> None:
        self.loop = loop
        self.answers = answers
        self.engine: Engine | None = None
        self.waiting: dict[int, Opening] = {}
        self.behind: set[int] = set()

    def opening(self, call: Http2Call) -> Opening | None:
        """What a call has to wait for before its next answer; None where its caller takes enough now."""
        opening = Opening(self, call)
        return None if opening.is_enough() else opening

    def note(self, stream: int) -> None:
        """The window of a stream has changed."""
        if (opening := self.waiting.get(stream)) is not None:
            opening.look()

    def note_sent(self) -> None:
        """Something was sent."""
        for stream in tuple(self.behind):
            self.waiting[stream].look()

    def note_all(self) -> None:
        """The windows of all streams may have changed."""
        for opening in self.waiting.values():
            opening.look()


class Opening:
    """A call's wait for nearly all before to be sent, and for its window to take enough.

    After a while, any byte will do.
    """

    def __init__(self, windows: OpeningWindows, call: Http2Call) -> None:
        self._windows = windows
        self._call = call
        self._queued = self._sendable = 0
        self._waiter: asyncio.Future[None] = windows.loop.create_future()
        self._few: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Wait for it, or for the end of the call."""
        windows, stream = self._windows, self._call.stream
        windows.waiting[stream] = self
        try:
            self.look()
            await self._waiter
        finally:
            del windows.waiting[stream]
            windows.behind.discard(stream)
            if self._few is not None:
                self._few.cancel()

    def look(self) -> None:
        """Let the call go on, if it may."""
        behind, stream = self._windows.behind, self._call.stream
        if self.is_enough():
            self._go_on()
        elif self._queued > _NEARLY_ALL:
            behind.add(stream)
            return
        elif self._sendable and self._few is None:
            self._few = self._windows.loop.call_later(_FEW_BYTES_AFTER_SECONDS, self._take_few)
        behind.discard(stream)

    def is_enough(self) -> bool:
        """Whether the call may go on."""
        windows, call = self._windows, self._call
        if windows.engine is None:
            return True
        queued = self._queued = windows.engine.queued(call.stream)
        if queued > _NEARLY_ALL:
            return False
        sendable = self._sendable = windows.engine.sendable(call.stream)
        call.widest = max(call.widest, sendable)
        return sendable > 0 and sendable >= min(windows.answers.most_granted(queued), call.widest // 2)

    def _take_few(self) -> None:
        self._few = None
        if self.is_enough():
            self._go_on()
        elif self._sendable:
            # Its caller may have made it narrower for good: it is not to be waited for what it was.
            self._call.widest = self._sendable
            self._go_on()

    def _go_on(self) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)
