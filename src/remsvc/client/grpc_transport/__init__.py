"""The transport by gRPC's own library: the one that needs nothing but the base install.

``aio`` for asyncio, ``blocking`` for everything else. What they share is how an error is read.
"""

from __future__ import annotations

import re

import grpc
import grpc.aio

from remsvc.client.failures import http_answer
from remsvc.client.transport import NO_MESSAGE, SEVERAL_MESSAGES, CallError
from remsvc.status import Metadata, StatusCode

# How gRPC tells that what came was no answer of gRPC's: with its HTTP status, or, where it met the page that
# came along first, without.
_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d{3})")
_HTTP_BODY = "Stream removed (Data frame with END_STREAM flag received)"


def call_error(error: grpc.RpcError, *, sent: bool = True) -> CallError:
    """What ``error`` says, without gRPC."""
    # Both of gRPC's error classes, the blocking and the asyncio one, are also a grpc.Call.
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    trailers = metadata_of(error.trailing_metadata())
    return CallError(*understood(error.code().name, error.details() or ""), trailers, sent=sent)


def understood(code: str, details: str) -> tuple[StatusCode, str]:
    """A status as gRPC tells it, or what it means where HTTP has answered and no gRPC server."""
    if match := _HTTP_STATUS.search(details):
        return http_answer(match[1])
    if _HTTP_BODY in details:
        return http_answer("")
    return StatusCode[code], details


def metadata_of(entries: object) -> Metadata:
    """gRPC's metadata, of either class, or None."""
    return tuple((str(key), value) for key, value in entries or ())  # type: ignore[attr-defined]


def no_message() -> CallError:
    """OK, and no answer."""
    return CallError(StatusCode.INTERNAL, NO_MESSAGE)


def several_messages() -> CallError:
    """More than one answer."""
    return CallError(StatusCode.INTERNAL, SEVERAL_MESSAGES)
