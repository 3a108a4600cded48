"""Gives gRPC's server our methods to call, and makes each of its calls one of ours."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NoReturn

import grpc
import grpc.aio

from remsvc.server.caller import Caller
from remsvc.server.calls.call import Call
from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Method, Methods
from remsvc.server.grpc_transport.connection_guard import ConnectionGuard
from remsvc.server.identity.authentication import Evidence, ShownCertificate
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode
from remsvc.time_limit import TimeLimit

_HEADER_OVERHEAD = 32  # what HTTP/2 counts for each beside its name and value
# A caller that may be sending commands on hears so much later why they are refused: grpc.aio takes a status
# that comes while it sends for an error of its own, INTERNAL. Nothing is read meanwhile: of a stranger, gRPC
# takes in a window, not a message.
_HOLD_SECONDS = 0.1
_ROOM = 1024 * 1024
# Calls that are held back so at the same time. Beyond, everybody is told at once: each takes memory.
_MOST_HELD = 200


class GrpcCall(Call):
    """A call that gRPC's server has taken.

    Args:
        context: gRPC's.
        guard: of the connections; it is told of verified calls.
        patience: seconds that its caller may let an answer wait.
    """

    def __init__(
        self,
        method: Method,
        context: Any,
        guard: ConnectionGuard,
        patience: float,
    ) -> None:
        metadata = context.invocation_metadata() or ()
        properties = context.auth_context()
        pem = properties.get("x509_pem_cert")
        certificate = ShownCertificate.of(
            pem[0] if pem else None, b"".join(properties.get("x509_pem_cert_chain", ()))
        )
        self._context = context
        self._guard = guard
        self._caller: Caller | None = None
        self._patience = patience
        self._single = method.one is not None  # one answer alone, which gRPC sends itself
        self._streams = method.stream is not None  # any number of requests
        self._half_closed = False
        self.answer: bytes | None = None
        self.method = method.name
        self.peer = context.peer()
        self.evidence = Evidence.shown(
            [value for key, value in metadata if key == "authorization"], certificate
        )
        self.metadata_bytes = sum(len(key) + len(value) + _HEADER_OVERHEAD for key, value in metadata)
        self._trailers: tuple[tuple[str, str | bytes], ...] = ()

    @property
    def caller(self) -> Caller | None:
        return self._caller

    def note_caller(self, caller: Caller) -> None:
        if self._caller is None:
            self._guard.begin(self.peer)
        self._caller = caller

    def set_trailers(self, trailers: tuple[tuple[str, str | bytes], ...]) -> None:
        self._trailers = trailers

    @property
    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """What to send with the status."""
        return self._trailers

    def leave(self) -> None:
        """It is over, however it ended."""
        if self._caller is not None:
            self._guard.end(self.peer)

    @property
    def ended(self) -> bool:
        return bool(self._context.done())

    async def begin(self) -> None:
        # gRPC cannot end a call whose first answer is being written together with the headers, and a
        # client that does not read can hold that up.
        await self._context.send_initial_metadata(())

    def take(self) -> bytes | None:
        return None

    async def read(self) -> bytes | None:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            self._half_closed = True
            return None
        return message  # type: ignore[no-any-return]

    def room(self) -> AbstractAsyncContextManager[int]:
        return nullcontext(_ROOM)  # gRPC has each answer taken before the next one may be written

    async def write(self, message: bytes) -> None:
        if self._single:
            self.answer = message
            return
        try:
            with TimeLimit(self._patience):
                await self._context.write(message)
        except TimeoutError:
            # What has begun to be written cannot be taken back: the status waits behind it.
            reason = f"no response was taken for {self._patience:g} s"
            raise RefusedError(StatusCode.UNAVAILABLE, reason) from None

    @property
    def may_be_sending(self) -> bool:
        """Whether its caller may be sending requests on."""
        return self._streams and not self._half_closed

    async def refuse(self, refused: RefusedError) -> NoReturn:
        """End the call with a status."""
        code = grpc.StatusCode[refused.code.name]
        await self._context.abort(code, str(refused), (*self._trailers, *refused.metadata))
        raise refused


class Handlers(grpc.GenericRpcHandler):
    """All methods of a server, as gRPC asks for them by their names.

    They are looked up here, because methods that are registered with gRPC one by one cost every call a look
    at all of them. gRPC is told that each method takes a stream of requests, which is the same on the wire.
    So the time until the one request is here can be limited, and a caller who is not let in is refused
    without its being read.

    Args:
        patience: seconds that a caller may let an answer wait.
    """

    def __init__(self, methods: Methods, calls: Calls, guard: ConnectionGuard, patience: float) -> None:
        self._calls = calls
        self._guard = guard
        self._patience = patience
        self._held = 0  # calls whose callers are not told yet that they are refused
        self._handlers = {method.name: self._handler(method) for method in methods.values()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See ``grpc.GenericRpcHandler``."""
        return self._handlers.get(handler_call_details.method)

    def _handler(self, method: Method) -> Any:
        async def single(_: object, context: Any) -> bytes | None:
            call = GrpcCall(method, context, self._guard, self._patience)
            await self._answer(call, method)
            if call.trailers:
                context.set_trailing_metadata(call.trailers)
            return call.answer

        async def streaming(_: object, context: Any) -> None:
            call = GrpcCall(method, context, self._guard, self._patience)
            await self._answer(call, method)

        if method.one is not None:
            return grpc.stream_unary_rpc_method_handler(single)
        return grpc.stream_stream_rpc_method_handler(streaming)

    async def _answer(self, call: GrpcCall, method: Method) -> None:
        try:
            await self._calls.answer(call, method)
        except RefusedError as refused:
            if call.may_be_sending:
                await self._hold()
            await call.refuse(refused)
        finally:
            call.leave()

    async def _hold(self) -> None:
        if self._held < _MOST_HELD:
            self._held += 1
            try:
                await asyncio.sleep(_HOLD_SECONDS)
            finally:
                self._held -= 1
