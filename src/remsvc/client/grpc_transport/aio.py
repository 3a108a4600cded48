"""The transport for asyncio that uses ``grpc.aio``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from remsvc.client.deadline import Deadline
from remsvc.client.grpc_transport import call_error, metadata_of, no_message, several_messages, understood
from remsvc.client.grpc_transport.channel import open_async_channel
from remsvc.client.options import GRPC, ConnectionOptions
from remsvc.client.transport import Answer, CallError, Readiness
from remsvc.status import Metadata

T = TypeVar("T")

if TYPE_CHECKING:
    UnaryMethod = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
    StreamCall = grpc.aio.StreamStreamCall[bytes, bytes]

_READINESS = {
    grpc.ChannelConnectivity.READY: Readiness.READY,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE: Readiness.BROKEN,
    grpc.ChannelConnectivity.SHUTDOWN: Readiness.CLOSED,
}


class AsyncGrpcTransport:
    """Carries asyncio's calls by gRPC: an :class:`~remsvc.client.transport.AsyncTransport`.

    Args:
        channel: carries the calls.
        owned: whether :meth:`close` closes the channel.
    """

    name = GRPC

    def __init__(self, channel: grpc.aio.Channel, *, owned: bool) -> None:
        self._channel = channel
        self._owned = owned

    @classmethod
    def connecting(cls, options: ConnectionOptions) -> AsyncGrpcTransport:
        """A transport with a channel of its own. Raises :class:`ConfigurationError`."""
        return cls(open_async_channel(options), owned=True)

    @property
    def readiness(self) -> Readiness:
        return _READINESS.get(self._channel.get_state(try_to_connect=True), Readiness.UNTRIED)

    async def unary(
        self,
        method: str,
        request: bytes,
        *,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool = False,
    ) -> Answer:
        # It is made as a call with a stream of answers: if a server sent several, gRPC's unary call would
        # wait for ever until somebody asks for the second.
        multi: UnaryMethod = self._channel.unary_stream(method)
        call = multi(request, timeout=timeout, metadata=metadata, wait_for_ready=wait_for_ready or None)
        try:
            message = await call.read()
            if not isinstance(message, bytes):
                raise no_message()
            if isinstance(await call.read(), bytes):
                raise several_messages()
            return Answer(message, metadata_of(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            raise call_error(error) from error
        finally:
            call.cancel()

    async def stream(
        self, method: str, requests: Iterable[bytes], *, timeout: float | None, metadata: Metadata
    ) -> AsyncGenerator[bytes, None]:
        call: StreamCall = self._channel.stream_stream(method)(timeout=timeout, metadata=metadata)
        outcome = _Outcome(call)
        writer = _Writer(call, requests)
        writing = asyncio.create_task(writer.write_all())
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            code, details = await outcome.of(error)
            if code != "OK":
                trailers = metadata_of(error.trailing_metadata())
                raise CallError(*understood(code, details), trailers, sent=writer.started) from error
        except asyncio.CancelledError:
            if writing.done() and not writing.cancelled() and (fault := writing.exception()):
                raise fault from None
            raise
        finally:
            call.cancel()
            writing.cancel()
            await asyncio.wait([writing])

    async def close(self) -> None:
        if self._owned:
            await self._channel.close()


class _Writer:
    """Writes the requests of a stream, while its answers are read elsewhere."""

    def __init__(self, call: StreamCall, requests: Iterable[bytes]) -> None:
        self._call = call
        self._requests = requests
        self.started = False
        """Whether a request may have been sent."""

    async def write_all(self) -> None:
        call = self._call
        try:
            await call.wait_for_connection()
            self.started = True
            for request in self._requests:
                await call.write(request)
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            pass  # The call has ended. Its reader learns how.
        except Exception:
            call.cancel()  # wakes the reader, which raises this task's error
            raise


class _Outcome:
    """The status that a stream really ended with.

    When a write fails because the call has ended, ``grpc.aio`` puts an INTERNAL of its own in the
    place of the server's status, before that arrives or after
    (https://github.com/grpc/grpc/issues/36066). So the first one is noted as it is set, and a true
    one is waited for.
    """

    _PLACEHOLDER = "Internal error from Core"
    _PATIENCE = 1.0  # seconds for the true status to follow the placeholder

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self._first: tuple[str, str] | None = None
        call.add_done_callback(self._note)

    def _note(self, call: StreamCall) -> None:
        if self._first is None:
            self._first = (_value(call.code()).name, _value(call.details()))

    async def of(self, error: grpc.aio.AioRpcError) -> tuple[str, str]:
        """Code and details, where ``error`` is what gRPC raised."""
        status = (error.code().name, error.details() or "")
        deadline = Deadline(self._PATIENCE)
        while status[1] == self._PLACEHOLDER and deadline.remaining():
            if self._first is not None and self._first[1] != self._PLACEHOLDER:
                return self._first
            await asyncio.sleep(0.01)
            status = ((await self._call.code()).name, await self._call.details())
        return status


def _value(coroutine: Coroutine[object, object, T]) -> T:
    """The value of a coroutine that never waits: gRPC gives an ended call's status only as such."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("the coroutine waits")
