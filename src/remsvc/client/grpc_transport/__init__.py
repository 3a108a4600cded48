"""The transport that uses gRPC's own library: the one that needs nothing but the base install.

``aio`` is for asyncio, ``blocking`` for everything else, and ``channel`` makes the channels of both. Here is
what both need to read gRPC's errors.
"""

from __future__ import annotations

import re

import grpc
import grpc.aio

from remsvc.client.failures import http_answer
from remsvc.client.transport import NO_MESSAGE, SEVERAL_MESSAGES, CallError
from remsvc.status import Metadata, StatusCode

# What gRPC says where a proxy or a web server has answered: with the HTTP status, or without it, where the
# page that came with it arrived first.
_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d{3})")
_HTTP_BODY = "Stream removed (Data frame with END_STREAM flag received)"


def call_error(error: grpc.RpcError, *, sent: bool = True) -> CallError:
    """The same error as a type that needs no gRPC."""
    # Both of gRPC's error classes, the blocking and the asyncio one, are also a grpc.Call.
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    trailers = metadata_of(error.trailing_metadata())
    return CallError(*understood(error.code().name, error.details() or ""), trailers, sent=sent)


def understood(code: str, details: str) -> tuple[StatusCode, str]:
    """A status and its message; where a proxy or a web server has answered, what its HTTP status means."""
    if match := _HTTP_STATUS.search(details):
        return http_answer(match[1])
    if _HTTP_BODY in details:
        return http_answer("")
    return StatusCode[code], details


def metadata_of(entries: object) -> Metadata:
    """Metadata from gRPC's, which has two classes for it, and None for no metadata."""
    return tuple((str(key), value) for key, value in entries or ())  # type: ignore[attr-defined]


def no_message() -> CallError:
    """The error for a call that ended with OK, but without an answer."""
    return CallError(StatusCode.INTERNAL, NO_MESSAGE)


def several_messages() -> CallError:
    """The error for a call that got more than one answer where one is due."""
    return CallError(StatusCode.INTERNAL, SEVERAL_MESSAGES)
