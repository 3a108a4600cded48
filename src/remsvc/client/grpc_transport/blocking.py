"""The transport for blocking calls that uses gRPC's."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from remsvc.client.grpc_transport import call_error, metadata_of, no_message, several_messages
from remsvc.client.grpc_transport.channel import open_channel
from remsvc.client.options import GRPC, ConnectionOptions
from remsvc.client.transport import Answer, CallError, Readiness
from remsvc.status import Metadata, StatusCode

if TYPE_CHECKING:
    UnaryMethod = grpc.UnaryStreamMultiCallable[bytes, bytes]
    StreamMethod = grpc.StreamStreamMultiCallable[bytes, bytes]

_LET_GO_SECONDS = 2.0


@contextmanager
def _ending(call: grpc.Call) -> Iterator[None]:
    """Cancel a stream at the end of the block, and wait until gRPC's own thread has let go of it.

    That thread is a daemon. If the interpreter ended just while it holds the call's lock, collecting
    the call's garbage would wait for that lock for ever, and so the process for its end.
    """
    let_go = threading.Event()
    if not call.add_callback(let_go.set):
        let_go.set()
    try:
        yield
    finally:
        call.cancel()
        let_go.wait(_LET_GO_SECONDS)


class GrpcTransport:
    """Carries blocking calls by gRPC: a :class:`~remsvc.client.transport.Transport`."""

    name = GRPC

    def __init__(self, options: ConnectionOptions) -> None:
        # Without it, gRPC would start a thread for each unary call that is read as unary() reads it.
        self._channel = open_channel(options, ("SingleThreadedUnaryStream", 1))
        # A blocking channel tells its state only to a thread of its own, so it is remembered here.
        self.readiness = Readiness.UNTRIED

    def unary(
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
            message = next(call, None)
            if message is None:
                raise no_message()
            if next(call, None) is not None:
                raise several_messages()
            answer = Answer(message, metadata_of(call.trailing_metadata()))
        except grpc.RpcError as error:
            raise self._failed(call_error(error)) from error
        finally:
            call.cancel()
        self.readiness = Readiness.READY
        return answer

    def stream(
        self, method: str, requests: Iterable[bytes], *, timeout: float | None, metadata: Metadata
    ) -> Generator[bytes, None, None]:
        sent = False
        fault: Exception | None = None

        def taken() -> Iterator[bytes]:  # gRPC consumes it in a thread that ends with the call
            nonlocal sent, fault
            try:
                for request in requests:
                    sent = True
                    yield request
            except Exception as error:
                fault = error
                raise

        multi: StreamMethod = self._channel.stream_stream(method)
        call = multi(taken(), timeout=timeout, metadata=metadata)
        try:
            with _ending(call):
                yield from call
        except grpc.RpcError as error:
            if fault is not None:
                raise fault from None
            raise self._failed(call_error(error, sent=sent)) from error

    def close(self) -> None:
        self.readiness = Readiness.CLOSED
        self._channel.close()

    def _failed(self, error: CallError) -> CallError:
        if self.readiness is Readiness.CLOSED:
            return error
        if error.code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
            self.readiness = Readiness.BROKEN
        elif error.code is not StatusCode.DEADLINE_EXCEEDED:
            self.readiness = Readiness.READY
        elif self.readiness is not Readiness.READY:
            self.readiness = Readiness.BROKEN
        return error
