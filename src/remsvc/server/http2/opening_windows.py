"""Delays a call's next answer until its flow-control window is wide enough for more than a few bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from remsvc.http2.engine import INITIAL_WINDOW_SIZE, WINDOW, Http2Engine
from remsvc.server.http2.unsent import AT_LEAST
from remsvc.server.http2.waiting_answers import WaitingAnswers

_NEARLY_ALL = AT_LEAST // 2
# An answer for every few bytes that a window is opened by would cost far more than one for many: the sender's
# part in avoiding the silly window syndrome, RFC 1122, section 4.2.3.4.
_FEW_BYTES_AFTER_SECONDS = 0.1


class _WindowedCall(Protocol):
    """The call whose caller is to take an answer."""

    @property
    def stream(self) -> int:
        """Its number on its connection."""

    @property
    def widest(self) -> int:
        """Most bytes that its caller was seen to take at once, since it last took only few."""

    def note_window(self, sendable: int) -> None:
        """Its caller takes so many bytes now."""

    def note_narrow_window(self, sendable: int) -> None:
        """Its caller takes so few, and may do so for good: what it once took is not waited for again."""


@dataclass(slots=True)
class _Wait:
    """Of one call, until ``over``. ``timer`` runs while its window is open, but not enough."""

    call: _WindowedCall
    over: asyncio.Future[None]
    timer: asyncio.TimerHandle | None = None


class OpeningWindows:
    """The windows that a connection's peer has given to its calls, for the answers.

    A call that waits is looked at when its own window changes, or all of them do. One that has written much
    that is not sent yet is looked at whenever something was sent.

    Args:
        loop: of the connection.
        answers: of the connection: they say how much a call would be granted.

    """

    def __init__(self, loop: asyncio.AbstractEventLoop, answers: WaitingAnswers) -> None:
        self._engine: Http2Engine | None = None  # before the connection has begun, and after its end
        self._loop = loop
        self._answers = answers
        self._waits: dict[int, _Wait] = {}
        self._behind: set[int] = set()  # those of them that have written much that is not sent yet
        self._initial_window = WINDOW
        self._all_wider = False

    def start(self, engine: Http2Engine) -> None:
        """The connection has begun."""
        self._engine = engine

    def end(self) -> None:
        """The connection has ended: whoever waits goes on when he is looked at."""
        self._engine = None

    def takes_enough(self, call: _WindowedCall) -> bool:
        """Whether nearly all that the call has written was sent, and its window takes enough for another
        answer."""
        engine, stream = self._engine, call.stream
        if engine is None:
            return True
        queued = engine.queued(stream)
        if queued > _NEARLY_ALL:
            return False
        sendable = engine.sendable(stream)
        call.note_window(sendable)
        return sendable > 0 and sendable >= min(self._answers.most_granted(queued), call.widest // 2)

    async def wait(self, call: _WindowedCall) -> None:
        """Wait until it does. 0.1 seconds after the call's window has begun to open, any byte is enough."""
        stream = call.stream
        wait = self._waits[stream] = _Wait(call, self._loop.create_future())
        try:
            self._look(stream)
            await wait.over
        finally:
            del self._waits[stream]
            self._behind.discard(stream)
            if wait.timer is not None:
                wait.timer.cancel()

    def note(self, stream: int) -> None:
        """The peer has opened the window of a stream. That of the connection (0) needs no look: who waits for
        it is looked at by :meth:`note_sent`."""
        if stream in self._waits:
            self._look(stream)

    def note_settings(self, settings: Mapping[int, int]) -> None:
        """The peer has sent settings. Where these open the windows of all streams, all calls that wait are
        looked at, by the next :meth:`note_sent`: so a crowd of settings costs no more than one."""
        before = self._initial_window
        self._initial_window = settings.get(INITIAL_WINDOW_SIZE, before)
        self._all_wider |= self._initial_window > before

    def note_sent(self) -> None:
        """Something may have been sent."""
        streams, self._all_wider = tuple(self._waits if self._all_wider else self._behind), False
        for stream in streams:
            self._look(stream)

    def _look(self, stream: int) -> None:
        """Let the call go on, if it may."""
        wait, engine = self._waits[stream], self._engine
        if engine is not None:
            if engine.queued(stream) > _NEARLY_ALL:
                self._behind.add(stream)
                return
            self._behind.discard(stream)
            if not engine.sendable(stream):
                return
        if self.takes_enough(wait.call):
            if not wait.over.done():
                wait.over.set_result(None)
        elif wait.timer is None:
            wait.timer = self._loop.call_later(_FEW_BYTES_AFTER_SECONDS, self._take_few, stream)

    def _take_few(self, stream: int) -> None:
        """Let the call go on with what its window takes, if that is anything."""
        wait, engine = self._waits[stream], self._engine
        wait.timer = None
        if engine is not None and (sendable := engine.sendable(stream)):
            wait.call.note_narrow_window(sendable)
        self._look(stream)
