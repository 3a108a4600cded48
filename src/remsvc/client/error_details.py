"""``google.rpc`` error details: what a status says beyond its message, for a program.

The messages are defined here, in a pool of their own, as the package that brings them
(googleapis-common-protos) is no dependency of ours. Only the wire format has to agree.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from remsvc.client.transport import Metadata
from remsvc.errors import AlreadyExistsError, ResourceExhaustedError, ServerError

_LONGEST_RETRY = 300.0
"""Seconds. Whatever a server says, nobody waits longer before the next attempt."""

_KEY = "grpc-status-details-bin"

_TEXT = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_BYTES = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
_NUMBER = descriptor_pb2.FieldDescriptorProto.TYPE_INT64

# Message: {field: (number, type, or the name of a message; a list: repeated)}
_MESSAGES: dict[str, dict[str, tuple[int, Any]]] = {
    "Status": {"details": (3, ["Any"])},
    "Any": {"type_url": (1, _TEXT), "value": (2, _BYTES)},
    "ErrorInfo": {"reason": (1, _TEXT), "domain": (2, _TEXT), "metadata": (3, ["Entry"])},
    "Entry": {"key": (1, _TEXT), "value": (2, _TEXT)},
    "RetryInfo": {"retry_delay": (1, "Duration")},
    "Duration": {"seconds": (1, _NUMBER), "nanos": (2, _NUMBER)},
}


def add_details(failure: ServerError, trailers: Metadata) -> None:
    """Set on ``failure`` what the details in ``trailers`` say. Those that cannot be read say nothing."""
    if not isinstance(failure, AlreadyExistsError | ResourceExhaustedError):
        return
    for key, value in trailers:
        if key == _KEY and isinstance(value, bytes):
            try:
                _add(failure, value)
            except (DecodeError, UnicodeDecodeError):
                return


def _add(failure: ServerError, status: bytes) -> None:
    for detail in _message_type("Status").FromString(status).details:
        name = detail.type_url.rpartition("/")[2]
        if name == "google.rpc.ErrorInfo" and isinstance(failure, AlreadyExistsError):
            info = _message_type("ErrorInfo").FromString(detail.value)
            failure.job_id = next((entry.value for entry in info.metadata if entry.key == "job"), None)
        elif name == "google.rpc.RetryInfo" and isinstance(failure, ResourceExhaustedError):
            delay = _message_type("RetryInfo").FromString(detail.value).retry_delay
            seconds = delay.seconds + delay.nanos / 1e9
            failure.retry_after = min(max(seconds, 0.0), _LONGEST_RETRY)


@cache
def _message_type(name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"error_details.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="error_details.proto", package="error_details", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated = isinstance(kind, list)
            kind = kind[0] if repeated else kind
            entry = message.field.add(name=field, number=number)
            entry.label = entry.LABEL_REPEATED if repeated else entry.LABEL_OPTIONAL
            if isinstance(kind, str):
                entry.type = entry.TYPE_MESSAGE
                entry.type_name = f".error_details.{kind}"
            else:
                entry.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
