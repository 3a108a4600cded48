"""Requests from the wire: bytes that are no message are refused as such, not as a crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError


@dataclass(frozen=True, slots=True)
class Malformed:
    """What is handed on in place of a request that could not be parsed. Admission refuses it; who reads a
    stream from its context meets it, too."""

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
    """A serializer for gRPC; what is serialized already stays as it is."""
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data
