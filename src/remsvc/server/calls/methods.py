"""Describes the methods that can be called: the type of their requests, and the functions that answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from google.protobuf.message import DecodeError

from remsvc.server.calls.call import Call
from remsvc.server.calls.field_count import FieldCount
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode
from remsvc.validation import LIMITS


class Requests(Protocol):
    """The requests that come in a stream, one after the other."""

    async def read(self) -> Any:
        """The next one; None after the last.

        Raises:
            RefusedError: it cannot be taken, and the call ends with this status.
        """

    def answered(self) -> None:
        """The oldest request read so far is answered: its memory may be given to another."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method that callers can call, and what answers it.

    Attributes:
        name: its full name, such as ``/RS.RemSvc/Ping``.
        request: the type of its requests.
        longest_request: the most bytes that a request may have. It leaves room for the largest of each field,
            and is in docs/limits.md.
        one: answers one request with one response; otherwise None.
        many: answers one request with any number of responses; otherwise None.
        stream: answers a stream of requests, writing its responses itself; otherwise None.
        open_to_all: whether strangers may call it.
    """

    name: str
    request: type[Any]
    longest_request: int
    one: Callable[[Any, Call], Awaitable[Any]] | None = None
    many: Callable[[Any, Call], AsyncIterator[Any]] | None = None
    stream: Callable[[Requests, Call], Awaitable[None]] | None = None
    open_to_all: bool = False

    _field_count: FieldCount = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_field_count", FieldCount(self.request.DESCRIPTOR))

    def too_long(self, size: int) -> RefusedError:
        """The refusal of a request of so many bytes, which names the fields that may be too large."""
        kind = self.request.DESCRIPTOR
        kinds = (kind, *(field.message_type for field in kind.fields if field.message_type is not None))
        named = ", ".join(limit.field for each in kinds for limit in LIMITS.get(each.name, ()))
        return RefusedError(
            StatusCode.INVALID_ARGUMENT,
            f"{kind.full_name}: expected at most {self.longest_request} bytes, not {size}"
            + (f" (a field is too large: {named})" if named else ""),
        )

    def parse(self, data: bytes) -> Any:
        """A request from the wire.

        Raises:
            RefusedError: it is too long, or no such message.
            InvalidCommandError: it has too many fields.
        """
        if len(data) > self.longest_request:
            raise self.too_long(len(data))
        self._field_count.check(data)
        try:
            return self.request.FromString(data)
        except DecodeError as error:
            name = self.request.DESCRIPTOR.full_name
            raise RefusedError(StatusCode.INVALID_ARGUMENT, f"not a valid {name}: {error}") from None


Methods: TypeAlias = dict[bytes, Method]
"""All methods that can be called, by the names that come in with a call."""


def methods_of(*services: Iterable[Method]) -> Methods:
    """The methods of all ``services``, for a transport to find them by name."""
    return {method.name.encode(): method for service in services for method in service}


def serialize(message: Any) -> bytes:
    """A response for the wire; what is serialized already stays as it is."""
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data
