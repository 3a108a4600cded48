"""One call, from its request to its status. Without input or output."""

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
    """A call, wherever it stands.

    Args:
        method: its full name.
        requests: its messages, in order.
        metadata: that it takes along.
        single: whether exactly one answer is due.
        deadline: when its time is up, in seconds of the monotonic clock; None: never.

    Attributes:
        stream: its number on its connection; 0 before it was begun.
        ended: whether nothing more will come, and what came first may still be unread.
        error: how it ended, where not with OK.
        trailers: the metadata that came with its status.
        requests: those that were not sent yet; None where all were.
        unacknowledged: bytes of its answers that the server may send again only when they were acknowledged.
        buffered: bytes that were acknowledged before they were read, since the message is a long one.
        wide: whether the server may send much at once.
        heard: whether the server has said anything of it.
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
        """What ``requests`` raised."""
        self.trailers: Metadata = ()
        self.pending: bytes | None = None
        """The next request, where there is one: taken early, to know which is the last."""
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
        """The next answer that is here."""
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
        """Whether :meth:`take` gives one."""
        return self._reader.ready

    def result(self) -> Answer:
        """What it gave, where it has ended and one answer is due. Raises what it ended with."""
        self.raise_error()
        assert self._answer is not None
        return Answer(self._answer, self.trailers)

    def raise_error(self) -> None:
        """Raise what it ended with, unless that is OK."""
        if self.fault is not None:
            raise self.fault
        error, self.error = self.error, None
        if error is None:
            return
        try:
            raise error
        finally:
            del error  # its traceback leads here: the call and its requests would stay as garbage

    def wake(self) -> None:
        """Something has happened that its caller waits for. Nothing is to be done where he looks himself."""

    # For its connection

    @property
    def wanted(self) -> int:
        """Bytes of the message that has begun and is not here as a whole."""
        return self._reader.wanted

    def headers(self, scheme: bytes, authority: bytes, now: float) -> list[Header]:
        """What begins it."""
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
        """It has begun, with this number on its connection."""
        self.stream = stream

    def drop_requests(self, fault: Exception | None = None) -> None:
        """Send no more of its requests; ``fault``: since making the next one has raised this."""
        self.requests = self.pending = None
        if fault is not None:
            self.fault = fault

    def widen(self) -> None:
        """The server may send much at once from here on."""
        self.wide = True

    def acknowledge(self, size: int, *, unread: bool = False) -> None:
        """The server may send so many bytes again; ``unread``: though nobody has read them."""
        self.unacknowledged -= size
        if unread:
            self.buffered += size

    def release(self) -> int:
        """Hold none of the bytes any more that were acknowledged unread; how many those were."""
        size, self.buffered = self.buffered, 0
        return size

    def next_request(self) -> bytes | None:
        """The next request, and :attr:`requests` is None where it is the last; None where there is none."""
        if self.requests is None:
            return None
        request = self.pending if self.pending is not None else next(self.requests, None)
        self.pending = next(self.requests, None) if request is not None else None
        if self.pending is None:
            self.requests = None
        return request

    def respond(self, headers: Sequence[Header], *, last: bool) -> None:
        """The headers of its answer have come; ``last``: they are all of it."""
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
        """Headers have come that are not yet those of the answer."""
        self._informational += 1
        if self._informational > _MOST_INFORMATIONAL:
            self.fail(CallError(StatusCode.INTERNAL, "the server sent too many informational responses"))

    def feed(self, data: bytes) -> bool:
        """Data of its answers has come; whether it goes on."""
        self.heard = True
        self.unacknowledged += len(data)
        before = self._reader.ready
        try:
            self._reader.feed(data)
            if self.single:  # nobody is interested before its status is here
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
        """End it, with OK where ``error`` is None. Only the first end counts."""
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
