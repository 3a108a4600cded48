"""One call that came over HTTP/2: its messages in, its messages out, and its status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

from remsvc.http2 import engine
from remsvc.http2.engine import Header
from remsvc.http2.frame_credit import EARNED_BY_MESSAGE
from remsvc.http2.headers import CONTENT_TYPE, status_headers
from remsvc.http2.messages import (
    PREFIX_BYTES,
    CompressedError,
    MessageError,
    MessageReader,
    TooLargeError,
    prefix,
)
from remsvc.server.caller import Caller
from remsvc.server.calls.call import Call
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.methods import Method
from remsvc.server.http2.opening_windows import OpeningWindows
from remsvc.server.http2.unread import Unread
from remsvc.server.http2.waiting_answers import WaitingAnswers
from remsvc.server.identity.authentication import Evidence
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode
from remsvc.time_limit import TimeLimit

_HEADERS = ((b":status", b"200"), (b"content-type", CONTENT_TYPE))
# What a client hears that sends compressed messages: which encodings are taken.
UNCOMPRESSED = (("grpc-accept-encoding", "identity"),)
# A message that is longer is put together from what comes in several windows.
_LONG = engine.WINDOW // 2
_LONG_WINDOW = 1024 * 1024
# A message that is shorter is sent together with its prefix, in one piece.
_SHORT = 4096


class _Session(Protocol):
    """What a call needs of its connection: see :class:`~remsvc.server.http2.session.ServerSession`."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def limits(self) -> LimitsConfig: ...
    @property
    def peer(self) -> str: ...
    @property
    def unread(self) -> Unread: ...
    @property
    def answers(self) -> WaitingAnswers: ...
    @property
    def windows(self) -> OpeningWindows: ...
    def verify(self, caller: Caller) -> None: ...
    def earn(self, credit: float) -> None: ...
    def has_room(self, call: Http2Call, size: int) -> bool: ...
    def grant(self, call: Http2Call) -> int: ...
    def begin(self, call: Http2Call, headers: tuple[Header, ...]) -> None: ...
    def send(self, stream: int, data: bytes) -> None: ...
    def finish(self, call: Http2Call, last: Sequence[Header], *, begun: bool) -> None: ...
    def acknowledge(self, stream: int, size: int) -> None: ...
    def widen(self, stream: int, window: int) -> None: ...
    def flush_soon(self) -> None: ...


class Http2Call(Call):
    """A stream of a connection; it belongs to the task that answers it.

    Attributes:
        stream: its number on its connection.
        half_closed: whether the caller has sent its last.
        streams: whether it may send any number of messages.
        widest: most bytes that its caller was seen to take at once, since it last took only few.
    """

    def __init__(
        self,
        session: _Session,
        stream: int,
        method: Method | None,
        evidence: Evidence,
        metadata_bytes: int,
        *,
        half_closed: bool,
    ) -> None:
        self._session = session
        self.stream = stream
        self.method = method.name if method is not None else ""
        self._method = method
        self.peer = session.peer
        self.evidence = evidence
        self.metadata_bytes = metadata_bytes
        self._caller: Caller | None = None
        self._trailers: tuple[tuple[str, str | bytes], ...] = ()
        self.half_closed = half_closed
        self.streams = method is not None and method.stream is not None
        self._unacknowledged = 0  # bytes that the caller may send again only when they were acknowledged
        self.widest = 0
        self._task: asyncio.Task[None] | None = None  # None also where nobody waits for the answer any more
        most = session.limits.max_message_bytes
        self._reader = MessageReader(most if method is None else min(method.longest_request, most))
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fault: RefusedError | None = None
        self._begun = False
        self._ended = False
        self._long = False  # whether a long message has come: then more than a window of it may

    # For those who answer

    @property
    def caller(self) -> Caller | None:
        return self._caller

    def note_caller(self, caller: Caller) -> None:
        self._session.verify(caller)
        self._caller = caller

    def set_trailers(self, trailers: tuple[tuple[str, str | bytes], ...]) -> None:
        self._trailers = trailers

    @property
    def ended(self) -> bool:
        return self._ended

    async def begin(self) -> None:
        self._begin()
        self._session.flush_soon()

    def take(self) -> bytes | None:
        try:
            message = self._reader.take()
        except MessageError as error:
            self._fault = self._refusal(error)
            return None
        if message is None:
            return None
        size = PREFIX_BYTES + len(message)
        session = self._session
        if self._long:
            session.unread.remove(self, size)
        session.earn(EARNED_BY_MESSAGE)
        self._acknowledge(min(self._unacknowledged, size))
        return message

    async def read(self) -> bytes | None:
        while True:
            if (message := self.take()) is not None:
                return message
            if self._fault is not None:
                raise self._fault
            if self._ended:
                raise asyncio.CancelledError  # its caller has gone
            if self.half_closed:
                if self._reader.within:
                    raise RefusedError(StatusCode.INVALID_ARGUMENT, "the last message is not complete")
                return None
            if self._unacknowledged:
                # Of a long message, a whole window can come before it is known whose it is.
                self._count(0)
            self._waiter = self._session.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    @asynccontextmanager
    async def room(self) -> AsyncIterator[int]:
        session = self._session
        if not session.windows.takes_enough(self):
            with self._patience():
                await session.windows.wait(self)
        try:
            yield session.grant(self) - PREFIX_BYTES
        finally:
            session.answers.give_back(self)

    async def write(self, message: bytes) -> None:
        session = self._session
        size = len(message)
        if session.answers.give_back(self) < PREFIX_BYTES + size:
            await self._wait_to_write(size)
        if self._ended:
            return
        self._begin()
        if size <= _SHORT:
            session.send(self.stream, prefix(size) + message)
        else:
            session.send(self.stream, prefix(size))
            session.send(self.stream, message)

    # For its session

    def note_task(self, task: asyncio.Task[None]) -> None:
        """This task answers it, and is cancelled when nobody waits for the answer any more."""
        if not self._ended:
            self._task = task

    def give_up_unacknowledged(self) -> int:
        """Bytes that its caller sent and that were not acknowledged: whoever asks does that from now on."""
        size, self._unacknowledged = self._unacknowledged, 0
        return size

    def note_window(self, sendable: int) -> None:
        """Its caller takes so many bytes now."""
        self.widest = max(self.widest, sendable)

    def note_narrow_window(self, sendable: int) -> None:
        """Its caller takes so few, and may do so for good: what it once took is not waited for again."""
        self.widest = sendable

    def limit(self, seconds: float) -> None:
        """End it after so long: its caller waits no longer."""
        self._timer = self._session.loop.call_later(seconds, self._expire)

    def feed(self, data: bytes, *, last: bool) -> None:
        """Data has come; ``last``: and no more will."""
        if data and self._fault is None and not self._ended:
            try:
                self._reader.feed(data)
            except MessageError as error:
                self._fault = self._refusal(error)
                self._unacknowledged += len(data)
            else:
                self._count(len(data))
        else:
            self._unacknowledged += len(data)  # dropped, within the window that it had
        if last:
            self.half_closed = True
        self._wake()

    def fail(self, refused: RefusedError) -> None:
        """End the call with this status, whatever its task is doing."""
        self.end(refused.code, str(refused), refused.metadata)
        self._stop()

    def end(self, status: StatusCode, reason: str = "", metadata: Any = ()) -> None:
        """Send the status; nothing can be sent after it. Only the first counts."""
        if self._ended:
            return
        self._note_end()
        trailers = status_headers(status, reason, (*self._trailers, *metadata))
        last = trailers if self._begun else (*_HEADERS, *trailers)
        self._session.finish(self, last, begun=self._begun)

    def abandon(self) -> None:
        """Its caller has gone: end what is being done for it."""
        if not self._ended:
            self._note_end()
            self._stop()

    def _stop(self) -> None:
        # Without the reference to it: what it was doing holds the call, and with it would do so until the
        # garbage of whole generations is looked through.
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _note_end(self) -> None:
        self._ended = True
        self._fault = None  # raised, it holds the call as well
        if self._timer is not None:
            self._timer.cancel()
        if self._long:
            self._long = False
            self._session.unread.remove(self)

    async def _wait_to_write(self, size: int) -> None:
        """Wait until an answer of ``size`` bytes may be written, or the call has ended."""
        session = self._session

        def ready() -> bool:
            return self._ended or session.has_room(self, size)

        if not ready():
            with self._patience():
                while not ready():
                    await session.answers.wait(self, ready, size)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """In the block, its caller is waited for no longer than ``stream_idle``, then refused.

        Raises:
            RefusedError: he has taken nothing for so long.
        """
        patience = self._session.limits.stream_idle
        try:
            with TimeLimit(patience):
                yield
        except TimeoutError:
            reason = f"no response was taken for {patience:g} s"
            raise RefusedError(StatusCode.UNAVAILABLE, reason) from None

    def _expire(self) -> None:
        self.fail(RefusedError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _begin(self) -> None:
        if not self._begun and not self._ended:
            self._begun = True
            self._session.begin(self, _HEADERS)

    def _count(self, size: int) -> None:
        """Let the caller go on sending a long message; of anything else, not before it was read."""
        self._unacknowledged += size
        if self._reader.wanted <= _LONG or self._caller is None or self._ended:
            return
        if not self._long:
            self._long = True
            self._session.widen(self.stream, _LONG_WINDOW)
        size = self._unacknowledged
        self._acknowledge(size)
        self._session.unread.add(self, size)

    def _acknowledge(self, size: int) -> None:
        if size:
            self._unacknowledged -= size
            self._session.acknowledge(self.stream, size)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _refusal(self, error: MessageError) -> RefusedError:
        if isinstance(error, CompressedError):
            self._trailers = UNCOMPRESSED
            return RefusedError(StatusCode.UNIMPLEMENTED, f"{error}: expected it as it is")
        most = self._session.limits.max_message_bytes
        if isinstance(error, TooLargeError) and error.size <= most and self._method is not None:
            return self._method.too_long(error.size)
        return RefusedError(StatusCode.RESOURCE_EXHAUSTED, str(error))
