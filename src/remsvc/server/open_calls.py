"""Every call passes here: who calls is decided, and streams end when their caller's credentials do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from remsvc.server.authentication import (
    AuthenticationError,
    Authenticator,
    CallContext,
    Caller,
    Evidence,
)
from remsvc.server.failed_authentication import FailedAuthentications
from remsvc.server.method_handlers import kind_of, respond
from remsvc.server.refusal import abort, exhausted

# Load balancers and orchestrators probe without credentials, and learn nothing but "serving".
_OPEN_TO_ALL = "/grpc.health.v1.Health/"
_ENDED = "the credentials of this call have been revoked or have expired"


@dataclass(slots=True, eq=False)
class _OpenStream:
    """A stream that is open, and what its caller showed."""

    caller: Caller
    evidence: Evidence
    task: asyncio.Task[Any]
    method: str
    peer: str
    ended: bool = False


class Authentication:
    """Refuses calls that are not authenticated; gives the others' handlers a :class:`CallContext`.

    Args:
        authenticator: decides who calls, until :meth:`use` gives another one.
        on_refusal: called with the method, the peer and the reason, for calls that are refused and
            for streams that are ended.
        failures: how many from one address are answered and told to ``on_refusal`` one by one.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        on_refusal: Callable[[str, str, str], None],
        failures: FailedAuthentications,
    ) -> None:
        self._authenticator = authenticator
        self._failures = failures
        self._on_refusal = on_refusal
        self._streams: set[_OpenStream] = set()

    def use(self, authenticator: Authenticator) -> None:
        """From now on, ``authenticator`` decides. Streams whose callers it does not know the same
        way are ended with ``UNAUTHENTICATED``; all others go on."""
        self._authenticator = authenticator
        for stream in tuple(self._streams):
            try:
                caller = authenticator.authenticate(stream.evidence)
            except AuthenticationError as error:
                self._end(stream, error.reason)
                continue
            if caller.identity != stream.caller.identity:
                self._end(stream, f"no longer of {stream.caller.identity}")
            stream.caller = caller  # it may expire at another time

    def end_expired(self) -> None:
        """End the streams whose callers' credentials have expired."""
        now = time.time()
        for stream in tuple(self._streams):
            if stream.caller.expires is not None and stream.caller.expires <= now:
                self._end(stream, f"what {stream.caller.identity} showed has expired")

    def guard(self, method: str, handler: Any) -> Any:
        """See :data:`~remsvc.server.method_handlers.Guard`; for handlers that take a stream of requests."""
        if method.startswith(_OPEN_TO_ALL):
            return handler
        kind = kind_of(handler)
        assert handler.request_streaming  # of a single request, gRPC would read it for anybody
        wrap = self._streaming if handler.response_streaming else self._single
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        call = wrap(getattr(handler, kind), method)
        return make(call, handler.request_deserializer, handler.response_serializer)

    async def _refuse(self, method: str, context: Any, error: AuthenticationError) -> None:
        if wait := self._failures.note(context.peer()):
            await abort(exhausted("too many failed authentications from this address", wait), context)
        self._on_refusal(method, context.peer(), error.reason)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))

    def _single(self, inner: Any, method: str) -> Any:
        async def call(request: Any, context: Any) -> Any:
            caller = await self._admitted(Evidence.of_call(context), method, context)
            return await inner(request, CallContext(context, caller))

        return call

    def _streaming(self, inner: Any, method: str) -> Any:
        async def call(request: Any, context: Any) -> None:
            evidence = Evidence.of_call(context)
            caller = await self._admitted(evidence, method, context)
            # The headers at once: gRPC cannot end a call whose first answer is being written together
            # with them, and a client that does not read can hold that up.
            await context.send_initial_metadata(())
            caller = await self._admitted(evidence, method, context)  # it may have changed meanwhile
            with self._opened(caller, evidence, method, context) as stream:
                try:
                    await respond(inner, request, CallContext(context, caller))
                except asyncio.CancelledError:
                    if not stream.ended or context.done():
                        raise
            # Not within: nothing may interrupt this.
            if stream.ended and not context.done():
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, _ENDED)

        return call

    async def _admitted(self, evidence: Evidence, method: str, context: Any) -> Caller:
        """Who it is; ends the call where it is nobody."""
        try:
            return self._authenticator.authenticate(evidence)
        except AuthenticationError as error:
            await self._refuse(method, context, error)
            raise

    @contextlib.contextmanager
    def _opened(self, caller: Caller, evidence: Evidence, method: str, context: Any) -> Iterator[_OpenStream]:
        task = asyncio.current_task()
        assert task is not None
        stream = _OpenStream(caller, evidence, task, method, context.peer())
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def _end(self, stream: _OpenStream, reason: str) -> None:
        if not stream.ended:
            stream.ended = True
            self._on_refusal(stream.method, stream.peer, reason)
            stream.task.cancel()
