"""The state of one call, from its request to its status. It reads and writes no socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from remsvc.client.transport import MAX_RECEIVE_BYTES, NO_MESSAGE, SEVERAL_MESSAGES, Answer, CallError
from remsvc.http2.engine import Header
from remsvc.http2.headers import (
    CONTENT_TYPE,
    decode_binary,
    decode_message,
    encode_metadata,
    encode_timeout,
    is_grpc,
)
from remsvc.http2.messages import CompressedError, MessageError, MessageReader
from remsvc.status import Metadata, StatusCode

_INCOMPLETE = "the server's last message is not complete"
_MOST_INFORMATIONAL = 8
_STATUSES = frozenset(StatusCode)
_OF_THE_PROTOCOL = (
    b"grpc-status",
    b"grpc-message",
    b"content-type",
    b"grpc-encoding",
    b"grpc-accept-encoding",
)


class ClientCall:
    """A call: what it has to send, what has come of its answers, and how it has ended.

    Its session tells it what has happened on its stream; its caller takes the answers.

    Args:
        method: its full name.
        requests: its messages, in order.
        metadata: what is sent along with it.
        single: whether exactly one answer is due.
        deadline: when its time is up, in seconds of the monotonic clock; None: there is no limit.

    Attributes:
        stream: its number on its connection; 0 before it has begun.
        ended: whether nothing more will come. Answers that came before may still be unread.
        error: how it has ended, unless with OK.
        trailers: the metadata that came with its status.
        requests: those that were not sent yet; None where all were.
        unacknowledged: bytes of its answers that still count against what the server may send.
        buffered: bytes that were acknowledged before anybody has read them, as their message is a long one.
        wide: whether the server may send much at once.
        heard: whether the server has answered anything to it.
        fault: what ``requests`` has raised.
        pending: the next request, where there is one. It is fetched early, to know which one is the last.
    """

    __slots__ = (
        "_answer",
        "_http_status",
        "_informational",
        "_reader",
        "buffered",
        "deadline",
        "ended",
        "error",
        "fault",
        "heard",
        "metadata",
        "method",
        "pending",
        "requests",
        "single",
        "stream",
        "trailers",
        "unacknowledged",
        "wide",
    )

    def __init__(
        self,
        method: str,
        requests: Iterable[bytes],
        metadata: Metadata,
        *,
        single: bool,
        deadline: float | None,
    ) -> None:
        self.method = method
        self.requests: Iterator[bytes] | None = iter(requests)
        self.metadata = metadata
        self.deadline = deadline
        self.stream = 0
        self.ended = False
        self.error: CallError | None = None
        self.fault: Exception | None = None
        self.trailers: Metadata = ()
        self.pending: bytes | None = None
        self.unacknowledged = 0
        self.buffered = 0
        self.wide = False
        self.heard = False
        self.single = single
        self._reader = MessageReader(MAX_RECEIVE_BYTES)
        self._answer: bytes | None = None
        self._informational = 0
        self._http_status = b"200"

    # For its caller

    def take(self) -> bytes | None:
        """The next answer, where it is here already, else None."""
        try:
            answer = self._reader.take()
        except MessageError as error:
            self._refuse(error)
            return None
        if answer is None and self.ended and self.error is None and self._reader.within:
            self.error = CallError(StatusCode.INTERNAL, _INCOMPLETE)
        return answer

    @property
    def has_answer(self) -> bool:
        """Whether :meth:`take` gives an answer now."""
        return self._reader.ready

    def result(self) -> Answer:
        """The one answer of an ended call. Raises the error that the call has ended with."""
        self.raise_error()
        assert self._answer is not None
        return Answer(self._answer, self.trailers)

    def raise_error(self) -> None:
        """Raise the error that the call has ended with, if any."""
        if self.fault is not None:
            raise self.fault
        error, self.error = self.error, None
        if error is None:
            return
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame: both, with all requests, would stay as garbage

    def wake(self) -> None:
        """Wake the caller, who waits for this call. Nothing to do where callers look by themselves."""

    # For its session

    @property
    def wanted(self) -> int:
        """The size in bytes of a message that has begun to arrive; 0 where there is none."""
        return self._reader.wanted

    def headers(self, scheme: bytes, authority: bytes, now: float) -> list[Header]:
        """The headers with which the call begins."""
        headers = [
            (b":method", b"POST"),
            (b":scheme", scheme),
            (b":path", self.method.encode("ascii")),
            (b":authority", authority),
            (b"te", b"trailers"),
            (b"content-type", CONTENT_TYPE),
            (b"user-agent", b"remsvc"),
            (b"grpc-accept-encoding", b"identity"),
        ]
        if self.deadline is not None:
            headers.append((b"grpc-timeout", encode_timeout(max(self.deadline - now, 0.0))))
        return headers + encode_metadata(self.metadata)

    def begin_on(self, stream: int) -> None:
        """The call has begun, with this number on its connection."""
        self.stream = stream

    def drop_requests(self, fault: Exception | None = None) -> None:
        """No more of its requests will be sent; ``fault``: because making the next one has raised this."""
        self.requests = self.pending = None
        if fault is not None:
            self.fault = fault

    def widen(self) -> None:
        """The server may send much at once from now on."""
        self.wide = True

    def acknowledge(self, size: int, *, unread: bool = False) -> None:
        """The server may send so many bytes more; ``unread``: although nobody has read as many yet."""
        self.unacknowledged -= size
        if unread:
            self.buffered += size

    def release(self) -> int:
        """Nothing that was acknowledged unread is held any more; returns how many bytes that were."""
        size, self.buffered = self.buffered, 0
        return size

    def next_request(self) -> bytes | None:
        """The next request; None where there is none. After the last one, :attr:`requests` is None."""
        if self.requests is None:
            return None
        request = self.pending if self.pending is not None else next(self.requests, None)
        self.pending = next(self.requests, None) if request is not None else None
        if self.pending is None:
            self.requests = None
        return request

    def respond(self, headers: Sequence[Header], *, last: bool) -> None:
        """The headers of its answer have come; ``last``: nothing comes after them."""
        self.heard = True
        if last:
            self._end_with(headers)
            return
        content_type = b""
        for name, value in headers:
            if name == b":status":
                self._http_status = value
            elif name == b"content-type":
                content_type = value
        if self._http_status != b"200" or not is_grpc(content_type):
            self.fail(self._not_grpc(content_type))

    def inform(self) -> None:
        """Informational headers have come (HTTP status 1xx), before those of the answer."""
        self._informational += 1
        if self._informational > _MOST_INFORMATIONAL:
            self.fail(CallError(StatusCode.INTERNAL, "the server sent too many informational responses"))

    def feed(self, data: bytes) -> bool:
        """Data of its answers has come; returns whether the call goes on."""
        self.heard = True
        self.unacknowledged += len(data)
        before = self._reader.ready
        try:
            self._reader.feed(data)
            if self.single:  # its caller waits for the status, and is woken by that
                self._take_only()
        except MessageError as error:
            self._refuse(error)
        else:
            if not (self.single or before) and self._reader.ready:
                self.wake()
        return not self.ended

    def _take_only(self) -> None:
        while (answer := self._reader.take()) is not None:
            if self._answer is not None:
                self.fail(CallError(StatusCode.INTERNAL, SEVERAL_MESSAGES))
                return
            self._answer = answer

    def _refuse(self, error: MessageError) -> None:
        if isinstance(error, CompressedError):
            refused = CallError(StatusCode.INTERNAL, "the server compressed a message, unasked")
        else:
            refused = CallError(StatusCode.RESOURCE_EXHAUSTED, str(error))
        if self.ended and self.error is None:
            self.error = refused  # its status came before what is found out now
        self.fail(refused)

    def finish(self, headers: Sequence[Header]) -> None:
        """Its trailers have come."""
        self.heard = True
        self._end_with(headers)

    def fail(self, error: CallError | None) -> None:
        """End the call, with OK where ``error`` is None. Only its first end counts."""
        if not self.ended:
            self.ended = True
            self.error = error
            self.requests = self.pending = None
            self.wake()

    def _end_with(self, headers: Sequence[Header]) -> None:
        status = message = None
        content_type = b""
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in headers:
            if name == b"grpc-status":
                status = value if status is None else status
            elif name == b"grpc-message":
                message = value if message is None else message
            elif name == b":status":
                self._http_status = value
            elif name == b"content-type":
                content_type = value
            elif name not in _OF_THE_PROTOCOL:
                _add_entry(metadata, name, value)
        self.trailers = tuple(metadata)
        if status is None:
            self.fail(self._no_status(content_type))
            return
        code = _status(status)
        if code is None:
            self.fail(
                CallError(StatusCode.UNKNOWN, f"the server ended the call with the status {_cut(status)!r}")
            )
        elif code is not StatusCode.OK:
            self.fail(CallError(code, decode_message(message or b""), self.trailers))
        elif self._reader.within:
            self.fail(CallError(StatusCode.INTERNAL, _INCOMPLETE))
        elif self.single and self._answer is None:
            self.fail(CallError(StatusCode.INTERNAL, NO_MESSAGE))
        else:
            self.fail(None)

    def _no_status(self, content_type: bytes) -> CallError:
        if self._http_status != b"200" or (content_type and not is_grpc(content_type)):
            return self._not_grpc(content_type)
        return CallError(StatusCode.UNKNOWN, "the server ended the call without a status")

    def _not_grpc(self, content_type: bytes) -> CallError:
        from remsvc.client.failures import http_answer  # rarely needed

        return CallError(*http_answer(_cut(self._http_status), _cut(content_type)))


def _add_entry(metadata: list[tuple[str, str | bytes]], name: bytes, value: bytes) -> None:
    key = name.decode("ascii", "replace")
    if not key.endswith("-bin"):
        metadata.append((key, value.decode("ascii", "replace")))
        return
    for part in value.split(b","):
        try:
            metadata.append((key, decode_binary(part.strip())))
        except ValueError:
            continue  # what cannot be read says nothing


def _status(value: bytes) -> StatusCode | None:
    if not value.isdigit() or len(value) > 2 or int(value) not in _STATUSES:
        return None
    return StatusCode(int(value))


def _cut(value: bytes) -> str:
    return value[:40].decode("ascii", "replace") + ("..." if len(value) > 40 else "")
