"""How many calls there are, how large their metadata is, and how long they may keep the server waiting."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio

from remsvc.server.authentication import CallContext
from remsvc.server.limits_config import LimitsConfig
from remsvc.server.method_handlers import kind_of, respond
from remsvc.server.refusal import RefusedError, abort, exhausted
from remsvc.server.requests import Malformed, careful
from remsvc.server.time_limit import TimeLimit

_RETRY_SECONDS = 1.0
# What HTTP/2 counts for each header beside its name and value.
_HEADER_OVERHEAD = 32


class Admission:
    """Refuses calls that are too many or too large, and ends those whose caller keeps it waiting.

    To come after authentication: who is not let in is refused before, without a request being read.

    Attributes:
        in_progress: authenticated calls now, by gRPC's name for the peer.
        admitted: authenticated calls since these were last cleared, by gRPC's name for the peer.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        # Of strangers (all that they may ask is health), and of those who are authenticated.
        self._calls = [0, 0]
        self._most = [max(limits.max_calls // 10, 1), limits.max_calls]
        self.in_progress: Counter[str] = Counter()
        self.admitted: Counter[str] = Counter()

    def guard(self, _: str, handler: Any) -> Any:
        """See :data:`~remsvc.server.method_handlers.Guard`."""
        inner = getattr(handler, kind_of(handler))
        # On the wire it is the same. A method of one request becomes one of a stream of them, so that
        # the time until the request is here can be limited.
        if handler.response_streaming:
            wrap, make = self._streaming, grpc.stream_stream_rpc_method_handler
        else:
            wrap, make = self._single, grpc.stream_unary_rpc_method_handler
        call = wrap(inner, handler.request_streaming)
        return make(call, careful(handler.request_deserializer), handler.response_serializer)

    def _single(self, inner: Any, request_streaming: bool) -> Any:
        async def call(requests: Any, context: Any) -> Any:
            try:
                with self._admitted(context):
                    request = _well_formed(requests) if request_streaming else await self._only(context)
                    return await inner(request, context)
            except RefusedError as refused:
                await abort(refused, context)

        return call

    def _streaming(self, inner: Any, request_streaming: bool) -> Any:
        async def call(requests: Any, context: Any) -> None:
            try:
                with self._admitted(context):
                    request = _well_formed(requests) if request_streaming else await self._only(context)
                    await respond(inner, request, _PatientContext(context, self._limits.stream_idle))
            except RefusedError as refused:
                await abort(refused, context)

        return call

    @contextlib.contextmanager
    def _admitted(self, context: Any) -> Iterator[None]:
        size = sum(
            len(key) + len(value) + _HEADER_OVERHEAD for key, value in context.invocation_metadata() or ()
        )
        if size > self._limits.max_metadata_bytes:
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"metadata of {size} bytes, more than {self._limits.max_metadata_bytes}",
            )
        authenticated = isinstance(context, CallContext)
        if self._calls[authenticated] >= self._most[authenticated]:
            raise exhausted(
                f"the server has {self._calls[authenticated]} calls in progress already", _RETRY_SECONDS
            )
        # A stranger's call gives its connection no rights.
        peer = context.peer() if authenticated else ""
        if peer and self.in_progress[peer] >= self._limits.max_streams:
            raise exhausted(
                f"this connection has {self._limits.max_streams} calls in progress already", _RETRY_SECONDS
            )
        self._calls[authenticated] += 1
        self.in_progress[peer] += 1
        self.admitted[peer] += 1
        try:
            yield
        finally:
            self._calls[authenticated] -= 1
            self.in_progress[peer] -= 1
            if not self.in_progress[peer]:
                del self.in_progress[peer]

    async def _only(self, context: Any) -> Any:
        limit = self._limits.request_timeout
        try:
            with TimeLimit(limit):
                request = await context.read()
        except TimeoutError:
            raise RefusedError(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"the request did not arrive within {limit:g} s"
            ) from None
        if request is grpc.aio.EOF:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "expected one request, got none")
        return _checked(request)


async def _well_formed(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


def _checked(request: Any) -> Any:
    if isinstance(request, Malformed):
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, request.reason)
    return request


class _PatientContext:
    """A call's context that waits only so long for the caller to take a response."""

    def __init__(self, context: Any, patience: float) -> None:
        self._context = context
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        try:
            with TimeLimit(self._patience):
                await self._context.write(message)
        except TimeoutError:
            # What has begun to be written cannot be taken back: the status waits behind it.
            raise RefusedError(
                grpc.StatusCode.UNAVAILABLE, f"no response was taken for {self._patience:g} s"
            ) from None
