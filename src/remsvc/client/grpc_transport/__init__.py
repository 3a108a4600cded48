"""The transport by gRPC's own library: the one that needs nothing but the base install.

``aio`` for asyncio, ``blocking`` for everything else. What they share is how an error is read.
"""

from __future__ import annotations

import grpc
import grpc.aio

from remsvc.client.transport import NO_MESSAGE, SEVERAL_MESSAGES, CallError, Metadata
from remsvc.status import Status


def call_error(error: grpc.RpcError, *, sent: bool = True) -> CallError:
    """What ``error`` says, without gRPC."""
    # Both of gRPC's error classes, the blocking and the asyncio one, are also a grpc.Call.
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    trailers = metadata_of(error.trailing_metadata())
    return CallError(Status[error.code().name], error.details() or "", trailers, sent=sent)


def metadata_of(entries: object) -> Metadata:
    """gRPC's metadata, of either class, or None."""
    return tuple((str(key), value) for key, value in entries or ())  # type: ignore[attr-defined]


def no_message() -> CallError:
    """OK, and no answer."""
    return CallError(Status.INTERNAL, NO_MESSAGE)


def several_messages() -> CallError:
    """More than one answer."""
    return CallError(Status.INTERNAL, SEVERAL_MESSAGES)
