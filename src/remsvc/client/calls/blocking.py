"""The calls of the blocking client."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import closing

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


class BlockingCalls:
    """Makes the calls of one client: as :class:`~remsvc.client.calls.aio.AsyncCalls` does, but blocking."""

    def __init__(self, options: ConnectionOptions) -> None:
        self.options = options
        self._transport: Transport | None = None
        self._closed = False

    def close(self) -> None:
        """Cancel the calls that run, and close the connection. Idempotent."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def headers(self, metadata: MetadataItems) -> Metadata:
        """The metadata to send: the token, and what the caller adds. Raises :class:`ConfigurationError`."""
        return call_metadata(self.options, metadata)

    def open(self) -> Transport:
        """The transport that carries the calls. Errors as for ``AsyncCalls.open``."""
        if self._closed:
            raise RemSvcError(f"{self.options.target}: the client is closed")
        if self._transport is None:
            self._transport = open_transport(self.options)
        return self._transport

    def unary(
        self,
        method: str,
        request: bytes,
        deadline: Deadline,
        metadata: Metadata,
        *,
        limit: float | None = None,
    ) -> Answer:
        """One unary call, of at most ``limit`` seconds where the deadline leaves more."""
        transport = self.open()
        timeout = deadline.remaining() if limit is None else deadline.within(limit)
        try:
            return transport.unary(method, request, timeout=timeout, metadata=metadata)
        except CallError as error:
            raise from_call(error, self.options, timeout=deadline.timeout) from error

    def repeatable(
        self, method: str, request: bytes, deadline: Deadline, metadata: Metadata, *, repeat: bool
    ) -> bytes:
        """A unary call that may arrive twice; with ``repeat``, made again as long as no answer comes."""
        repeats = Repeats(deadline, allowed=repeat)
        while True:
            try:
                return self.unary(method, request, deadline, metadata, limit=ATTEMPT_TIMEOUT).message
            except NO_ANSWER as error:
                pause = repeats.pause_after(error)
            time.sleep(pause)

    def stream(
        self, method: str, requests: Iterable[bytes], deadline: Deadline, metadata: Metadata
    ) -> Generator[bytes, None, None]:
        """The answers of a streaming call. Close it."""
        answers = self.open().stream(method, requests, timeout=deadline.remaining(), metadata=metadata)
        try:
            with closing(answers):
                yield from answers
        except CallError as error:
            raise from_call(error, self.options, timeout=deadline.timeout) from error

    def connect(self, deadline: Deadline, metadata: Metadata) -> None:
        """Make sure that there is a connection, by a ping: see ``AsyncCalls.connect``."""
        readiness = self.open().readiness
        if readiness is Readiness.READY:
            return
        if readiness is Readiness.CLOSED:
            raise from_status("UNAVAILABLE", "the channel is closed", self.options, sent=False)
        if readiness is Readiness.BROKEN:
            # Without waiting, the answer could be the error of an earlier attempt to connect.
            patience = deadline.within(RECONNECT_WAIT)
            if self._reach(patience, metadata, wait_for_ready=True) is None:
                return
        error = self._reach(deadline.within(CONNECT_TIMEOUT), metadata)
        if error is not None:
            raise no_connection(error, self.options, deadline) from error

    def _reach(self, timeout: float, metadata: Metadata, *, wait_for_ready: bool = False) -> CallError | None:
        """Ping the server: the error where it shows that there is no connection, else None."""
        try:
            self.open().unary(
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
