"""The lower half of the asyncio client: its transport, and the calls that its methods are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING

from remsvc.client import protocol
from remsvc.client.deadline import CONNECT_TIMEOUT, RECONNECT_WAIT, Deadline
from remsvc.client.failures import UNREACHED, from_call, from_status, no_connection
from remsvc.client.metadata import MetadataItems, call_metadata
from remsvc.client.options import ConnectionOptions
from remsvc.client.repeats import ATTEMPT_TIMEOUT, Repeats
from remsvc.client.transport import Answer, AsyncTransport, CallError, Readiness
from remsvc.client.transport_choice import open_async_transport, over_channel
from remsvc.errors import NO_ANSWER, RemSvcError
from remsvc.status import Metadata

if TYPE_CHECKING:
    import grpc.aio
    from typing_extensions import Self


class AioConnection:
    """What all calls of :class:`~remsvc.client.aio.AsyncClient` need: a transport, opened when used."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._transport: AsyncTransport | None = None
        self._owned = True
        self._closed = False

    @classmethod
    def over(cls, channel: grpc.aio.Channel | AsyncTransport, options: ConnectionOptions) -> Self:
        """A client on a channel that somebody else owns and closes.

        Args:
            channel: a channel of gRPC's, or one of our transports.
            options: their token goes with each call, and their target names the server in errors.
        """
        client = cls(options)
        client._transport = over_channel(channel)
        client._owned = False
        return client

    @property
    def transport(self) -> str:
        """What carries the calls: ``http2`` or ``grpc``. Raises :class:`ConfigurationError`."""
        return self._open().name

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what runs and close the connection, unless it came from :meth:`over`. Idempotent."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None and self._owned:
            await transport.close()

    async def connect(self, *, timeout: float | None = CONNECT_TIMEOUT, metadata: MetadataItems = ()) -> None:
        """Make sure that the server can be reached. ``timeout`` is in seconds.

        Raises:
            ServerError: it cannot; its ``sent`` is False.
            ConfigurationError: the options or the metadata cannot be used.
        """
        await self._connect(Deadline(timeout), call_metadata(self._options, metadata))

    def _open(self) -> AsyncTransport:
        if self._closed:
            raise RemSvcError(f"{self._options.target}: the client is closed")
        if self._transport is None:
            self._transport = open_async_transport(self._options)
        return self._transport

    async def _unary(
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
            return await transport.unary(method, request, timeout=timeout, metadata=metadata)
        except CallError as error:
            raise from_call(error, self._options, timeout=deadline.timeout) from error

    async def _repeatable(
        self, method: str, request: bytes, deadline: Deadline, metadata: Metadata, *, repeat: bool
    ) -> bytes:
        """A unary call that may arrive twice; with ``repeat``, made again as long as no answer comes."""
        repeats = Repeats(deadline, allowed=repeat)
        while True:
            try:
                return (await self._unary(method, request, deadline, metadata, limit=ATTEMPT_TIMEOUT)).message
            except NO_ANSWER as error:
                pause = repeats.pause_after(error)
            await asyncio.sleep(pause)

    async def _stream(
        self, method: str, requests: Iterable[bytes], deadline: Deadline, metadata: Metadata
    ) -> AsyncGenerator[bytes, None]:
        """The answers of a streaming call. Close it."""
        answers = self._open().stream(method, requests, timeout=deadline.remaining(), metadata=metadata)
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except CallError as error:
            raise from_call(error, self._options, timeout=deadline.timeout) from error

    async def _connect(self, deadline: Deadline, metadata: Metadata) -> None:
        """Make sure that there is a connection. Any later error then means "may have been sent".

        It is done by a ping, which changes nothing and shows that the server takes calls.
        """
        readiness = self._open().readiness
        if readiness is Readiness.READY:
            return
        if readiness is Readiness.CLOSED:
            raise from_status("UNAVAILABLE", "the channel is closed", self._options, sent=False)
        if readiness is Readiness.BROKEN:
            # Without waiting, the answer could be the error of an earlier attempt to connect.
            patience = deadline.within(RECONNECT_WAIT)
            if await self._reach(patience, metadata, wait_for_ready=True) is None:
                return
        error = await self._reach(deadline.within(CONNECT_TIMEOUT), metadata)
        if error is not None:
            raise no_connection(error, self._options, deadline) from error

    async def _reach(
        self, timeout: float, metadata: Metadata, *, wait_for_ready: bool = False
    ) -> CallError | None:
        """Ping the server: the error where it shows that there is no connection, else None."""
        try:
            await self._open().unary(
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
