"""gRPC's method handlers: whatever their kind, found and wrapped in one way."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import grpc

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Guard = Callable[[str, Any], Any]
"""From a method's name and its handler to the handler that is called in its place."""


class GuardedHandlers(grpc.GenericRpcHandler):
    """All methods of a server, each behind its guards. Services are added to it as to a server.

    They are wrapped once. gRPC's interceptors would be asked for each call anew, and methods that are
    registered with gRPC one by one cost every call a look at all of them.

    Args:
        guards: applied one after the other, the outermost last.
    """

    def __init__(self, *guards: Guard) -> None:
        self._guards = guards
        self._services: list[grpc.GenericRpcHandler] = []
        self._guarded: dict[str, Any] = {}  # there are only as many as have a handler

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Add services."""
        self._services += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Nothing: generated code hands over the same methods twice."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See ``grpc.GenericRpcHandler``."""
        method = handler_call_details.method
        if method in self._guarded:
            return self._guarded[method]
        found = (service.service(handler_call_details) for service in self._services)
        handler = next((handler for handler in found if handler is not None), None)
        if handler is not None:
            for guard in self._guards:
                handler = guard(method, handler)
            self._guarded[method] = handler
        return handler


def kind_of(handler: Any) -> str:
    """Such as ``unary_stream``: the attribute of a method handler that holds its function."""
    return next(kind for kind in _KINDS if getattr(handler, kind) is not None)


async def respond(inner: Any, request: Any, context: Any) -> None:
    """Call the function of a method that answers with a stream; what it yields goes to ``context``.

    Not handed on as a generator: gRPC's own writing could not be interrupted.
    """
    if not inspect.isasyncgenfunction(inner):
        await inner(request, context)
        return
    async with contextlib.aclosing(inner(request, context)) as responses:
        async for response in responses:
            await context.write(response)
