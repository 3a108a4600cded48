"""Requests from the wire: bytes that are no message are refused as such, not as a crash."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from remsvc.server.authentication import CallContext

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Malformed:
    """What is handed on in place of a request that could not be parsed."""

    reason: str


def parser(message: type[Any]) -> Callable[[bytes], Any]:
    """A deserializer for gRPC: the message, or :class:`Malformed`."""

    def parse(data: bytes) -> Any:
        try:
            return message.FromString(data)
        except DecodeError as error:
            return Malformed(f"not a valid {message.DESCRIPTOR.full_name}: {error}")

    return parse


def careful(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """The deserializer of somebody else's service, as :func:`parser` would have made it."""

    def parse_or_not(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            return Malformed(f"not a valid request: {error}")

    return parse_or_not


def serialize(message: Any) -> bytes:
    """A serializer for gRPC."""
    data: bytes = message.SerializeToString()
    return data


def parsed(handler: Callable[[Any, CallContext], Awaitable[T]]) -> Callable[[Any, CallContext], Awaitable[T]]:
    """A unary handler that is given no malformed request."""

    async def handle(request: Any, context: CallContext) -> T:
        if isinstance(request, Malformed):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, request.reason)
        return await handler(request, context)

    return handle
