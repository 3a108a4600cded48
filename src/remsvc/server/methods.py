"""The methods that can be called: what each takes, what it answers, and who answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from remsvc.server.call import Call
from remsvc.server.refusal import RefusedError
from remsvc.status import Status

Read: TypeAlias = Callable[[], Awaitable[Any]]
"""Reads the next request of a stream; None after the last. Raises :class:`RefusedError`."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method.

    Attributes:
        name: its full name, such as ``/RS.RemSvc/Ping``.
        request: the type of its requests.
        one: answers one request with one response; else None.
        many: answers one request with any number of responses; else None.
        stream: answers a stream of requests, writing its responses itself; else None.
        open_to_all: whether strangers may call it.
    """

    name: str
    request: type[Any]
    one: Callable[[Any, Call], Awaitable[Any]] | None = None
    many: Callable[[Any, Call], AsyncIterator[Any]] | None = None
    stream: Callable[[Read, Call], Awaitable[None]] | None = None
    open_to_all: bool = False

    def parse(self, data: bytes) -> Any:
        """A request from the wire. Raises :class:`RefusedError`: bytes that are none are no crash."""
        try:
            return self.request.FromString(data)
        except DecodeError as error:
            name = self.request.DESCRIPTOR.full_name
            raise RefusedError(Status.INVALID_ARGUMENT, f"not a valid {name}: {error}") from None


Methods: TypeAlias = dict[bytes, Method]
"""By their names, as they come in."""


def methods_of(*services: Iterable[Method]) -> Methods:
    """Of all ``services``."""
    return {method.name.encode(): method for service in services for method in service}


def serialize(message: Any) -> bytes:
    """A response for the wire; what is serialized already stays as it is."""
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data
