"""gRPC's method handlers, as interceptors wrap them: whatever their kind, in one way."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


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
