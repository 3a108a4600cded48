"""The connection of the blocking client: its channel, and calls over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from remsvc.client import protocol
from remsvc.client.backoff import Backoff
from remsvc.client.channel import Metadata, MetadataItems, call_metadata, open_channel
from remsvc.client.deadline import ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, RECONNECT_WAIT, Deadline
from remsvc.client.failures import from_grpc, no_connection
from remsvc.client.options import ConnectionOptions
from remsvc.errors import NO_ANSWER, CallCancelledError, RemSvcError, ServerError, UnavailableError

if TYPE_CHECKING:
    from typing_extensions import Self

    UnaryMethod = grpc.UnaryUnaryMultiCallable[bytes, bytes]


_LET_GO_SECONDS = 2.0


@contextmanager
def ending(call: grpc.Call) -> Iterator[None]:
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


class Connection:
    """What all calls of :class:`~remsvc.client.sync.Client` share."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._channel: grpc.Channel | None = None
        # A blocking channel tells its state only to a thread of its own, so it is remembered here.
        self._connected = False
        self._lost = False
        self._closed = False

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what runs and close the channel. Idempotent."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def connect(self, *, timeout: float | None = CONNECT_TIMEOUT, metadata: MetadataItems = ()) -> None:
        """See :meth:`AsyncClient.connect <remsvc.client.aio_connection.AsyncConnection.connect>`."""
        self._connect(Deadline(timeout), call_metadata(self._options, metadata))

    def _open(self) -> grpc.Channel:
        if self._closed:
            raise RemSvcError(f"{self._options.target}: the client is closed")
        if self._channel is None:
            self._channel = open_channel(self._options)
        return self._channel

    def _unary(
        self,
        method: str,
        request: bytes,
        deadline: Deadline,
        metadata: Metadata,
        *,
        limit: float | None = None,
    ) -> bytes:
        """One unary call, of at most ``limit`` seconds where the deadline leaves more."""
        call: UnaryMethod = self._open().unary_unary(method)
        timeout = deadline.remaining() if limit is None else deadline.within(limit)
        try:
            return call(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise self._failure(error, deadline) from error

    def _idempotent(self, method: str, request: bytes, deadline: Deadline, metadata: Metadata) -> bytes:
        """A unary call that may be made again, as often as the deadline allows."""
        backoff = Backoff()
        while True:
            try:
                return self._unary(method, request, deadline, metadata, limit=ATTEMPT_TIMEOUT)
            except NO_ANSWER:
                pause = backoff.next()
                if deadline.within(pause) < pause:
                    raise
            time.sleep(pause)

    def _failure(self, error: grpc.RpcError, deadline: Deadline, *, sent: bool = True) -> ServerError:
        failure = from_grpc(error, self._options, sent=sent, timeout=deadline.timeout)
        if isinstance(failure, UnavailableError | CallCancelledError):
            self._connected, self._lost = False, True
        return failure

    def _connect(self, deadline: Deadline, metadata: Metadata) -> None:
        """Make sure that there is a connection, by a ping: see ``AsyncClient``."""
        if self._connected:
            return
        if self._lost:
            # Without waiting, gRPC would answer with the failure of some earlier attempt.
            self._lost = False
            patience = deadline.within(RECONNECT_WAIT)
            if self._reach(patience, metadata, wait_for_ready=True) is None:
                return
        error = self._reach(deadline.within(CONNECT_TIMEOUT), metadata)
        if error is not None:
            self._lost = True
            raise no_connection(error, self._options, deadline) from error

    def _reach(
        self, timeout: float, metadata: Metadata, *, wait_for_ready: bool | None = None
    ) -> grpc.RpcError | None:
        """Ping; the error where that shows that there is no connection, else None."""
        call: UnaryMethod = self._open().unary_unary(protocol.PING)
        try:
            call(protocol.encode_ping(), timeout=timeout, metadata=metadata, wait_for_ready=wait_for_ready)
        except grpc.RpcError as error:
            # Any other answer, even an error, comes from a server that takes calls.
            if isinstance(from_grpc(error, self._options), NO_ANSWER):
                return error
        self._connected = True
        return None
