"""The calls of the asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from remsvc.client import protocol
from remsvc.client.deadline import CONNECT_TIMEOUT, RECONNECT_WAIT, Deadline
from remsvc.client.failures import UNREACHED, from_call, from_status, no_connection
from remsvc.client.metadata import MetadataItems, call_metadata
from remsvc.client.options import ConnectionOptions
from remsvc.client.repeats import ATTEMPT_TIMEOUT, Repeats
from remsvc.client.transport import Answer, AsyncTransport, CallError, Readiness
from remsvc.client.transport_choice import open_async_transport
from remsvc.errors import NO_ANSWER, RemSvcError
from remsvc.status import Metadata


class AsyncCalls:
    """Makes the calls of one client, over a transport that is opened with the first of them.

    Args:
        options: their target names the server in errors.
        transport: of somebody else, who closes it; None: one for ``options``, which is closed with this.
    """

    def __init__(self, options: ConnectionOptions, transport: AsyncTransport | None = None) -> None:
        self.options = options
        self._transport = transport
        self._owned = transport is None
        self._closed = False

    async def close(self) -> None:
        """Cancel the calls that run, and close the connection where it is this client's own. Idempotent."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None and self._owned:
            await transport.close()

    def headers(self, metadata: MetadataItems) -> Metadata:
        """The metadata to send: the token, and what the caller adds. Raises :class:`ConfigurationError`."""
        return call_metadata(self.options, metadata)

    def open(self) -> AsyncTransport:
        """The transport that carries the calls.

        Raises:
            ConfigurationError: the options cannot be used.
            RemSvcError: the client is closed.
        """
        if self._closed:
            raise RemSvcError(f"{self.options.target}: the client is closed")
        if self._transport is None:
            self._transport = open_async_transport(self.options)
        return self._transport

    async def unary(
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
            return await transport.unary(method, request, timeout=timeout, metadata=metadata)
        except CallError as error:
            raise from_call(error, self.options, timeout=deadline.timeout) from error

    async def repeatable(
        self, method: str, request: bytes, deadline: Deadline, metadata: Metadata, *, repeat: bool
    ) -> bytes:
        """A unary call that may arrive twice; with ``repeat``, made again as long as no answer comes."""
        repeats = Repeats(deadline, allowed=repeat)
        while True:
            try:
                return (await self.unary(method, request, deadline, metadata, limit=ATTEMPT_TIMEOUT)).message
            except NO_ANSWER as error:
                pause = repeats.pause_after(error)
            await asyncio.sleep(pause)

    async def stream(
        self, method: str, requests: Iterable[bytes], deadline: Deadline, metadata: Metadata
    ) -> AsyncGenerator[bytes, None]:
        """The answers of a streaming call. Close it."""
        answers = self.open().stream(method, requests, timeout=deadline.remaining(), metadata=metadata)
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except CallError as error:
            raise from_call(error, self.options, timeout=deadline.timeout) from error

    async def connect(self, deadline: Deadline, metadata: Metadata) -> None:
        """Make sure that there is a connection. Any later error then means "may have been sent".

        It is done by a ping, which changes nothing and shows that the server takes calls.
        """
        readiness = self.open().readiness
        if readiness is Readiness.READY:
            return
        if readiness is Readiness.CLOSED:
            raise from_status("UNAVAILABLE", "the channel is closed", self.options, sent=False)
        if readiness is Readiness.BROKEN:
            # Without waiting, the answer could be the error of an earlier attempt to connect.
            patience = deadline.within(RECONNECT_WAIT)
            if await self._reach(patience, metadata, wait_for_ready=True) is None:
                return
        error = await self._reach(deadline.within(CONNECT_TIMEOUT), metadata)
        if error is not None:
            raise no_connection(error, self.options, deadline) from error

    async def _reach(
        self, timeout: float, metadata: Metadata, *, wait_for_ready: bool = False
    ) -> CallError | None:
        """Ping the server: the error where it shows that there is no connection, else None."""
        try:
            await self.open().unary(
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
