"""The lower half of the blocking client: its transport, and the calls that its methods are made of."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING

from remsvc.client import protocol
from remsvc.client.deadline import CONNECT_TIMEOUT, RECONNECT_WAIT, Deadline
from remsvc.client.failures import UNREACHED, from_call, from_status, no_connection
from remsvc.client.metadata import MetadataItems, call_metadata
from remsvc.client.options import ConnectionOptions
from remsvc.client.repeats import ATTEMPT_TIMEOUT, Repeats
from remsvc.client.transport import Answer, CallError, Readiness, Transport
from remsvc.client.transport_choice import open_transport
from remsvc.errors import NO_ANSWER, RemSvcError
from remsvc.status import Metadata

if TYPE_CHECKING:
    from typing_extensions import Self


class SyncConnection:
    """What all calls of :class:`~remsvc.client.sync.Client` need: a transport, opened when used."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._transport: Transport | None = None
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
        """Cancel what runs and close the connection. Idempotent."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    @property
    def transport(self) -> str:
        """What carries the calls: ``http2`` or ``grpc``. Raises :class:`ConfigurationError`."""
        return self._open().name

    def connect(self, *, timeout: float | None = CONNECT_TIMEOUT, metadata: MetadataItems = ()) -> None:
        """See :meth:`AsyncClient.connect <remsvc.client.aio_connection.AioConnection.connect>`."""
        self._connect(Deadline(timeout), call_metadata(self._options, metadata))

    def _open(self) -> Transport:
        if self._closed:
            raise RemSvcError(f"{self._options.target}: the client is closed")
        if self._transport is None:
            self._transport = open_transport(self._options)
        return self._transport

    def _unary(
        self,
        method: str,
        request: bytes,
        deadline: Deadline,
        metadata: Metadata,
        *,
        limit: float | None = None,
    ) -> Answer:
        """One unary call, of at most ``limit`` seconds where the deadline leaves more."""
        transport = self._open()
        timeout = deadline.remaining() if limit is None else deadline.within(limit)
        try:
            return transport.unary(method, request, timeout=timeout, metadata=metadata)
        except CallError as error:
            raise from_call(error, self._options, timeout=deadline.timeout) from error

    def _repeatable(
        self, method: str, request: bytes, deadline: Deadline, metadata: Metadata, *, repeat: bool
    ) -> bytes:
        """A unary call that may arrive twice; with ``repeat``, made again as long as no answer comes."""
        repeats = Repeats(deadline, allowed=repeat)
        while True:
            try:
                return (self._unary(method, request, deadline, metadata, limit=ATTEMPT_TIMEOUT)).message
            except NO_ANSWER as error:
                pause = repeats.pause_after(error)
            time.sleep(pause)

    def _stream(
        self, method: str, requests: Iterable[bytes], deadline: Deadline, metadata: Metadata
    ) -> Generator[bytes, None, None]:
        """The answers of a streaming call. Close it."""
        answers = self._open().stream(method, requests, timeout=deadline.remaining(), metadata=metadata)
        try:
            with closing(answers):
                yield from answers
        except CallError as error:
            raise from_call(error, self._options, timeout=deadline.timeout) from error

    def _connect(self, deadline: Deadline, metadata: Metadata) -> None:
        """Make sure that there is a connection, by a ping: see ``AioConnection``."""
        readiness = self._open().readiness
        if readiness is Readiness.READY:
            return
        if readiness is Readiness.CLOSED:
            raise from_status("UNAVAILABLE", "the channel is closed", self._options, sent=False)
        if readiness is Readiness.BROKEN:
            # Without waiting, the answer could be the error of an earlier attempt to connect.
            patience = deadline.within(RECONNECT_WAIT)
            if self._reach(patience, metadata, wait_for_ready=True) is None:
                return
        error = self._reach(deadline.within(CONNECT_TIMEOUT), metadata)
        if error is not None:
            raise no_connection(error, self._options, deadline) from error

    def _reach(self, timeout: float, metadata: Metadata, *, wait_for_ready: bool = False) -> CallError | None:
        """Ping the server: the error where it shows that there is no connection, else None."""
        try:
            self._open().unary(
                protocol.PING,
                protocol.encode_ping(),
                timeout=timeout,
                metadata=metadata,
                wait_for_ready=wait_for_ready,
            )
        except CallError as error:
            # Any other answer, even an error, comes from a server that takes calls.
            if error.code in UNREACHED:
                return error
        return None
