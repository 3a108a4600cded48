"""The connection of the asyncio client: its channel, and calls over it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from remsvc.client import protocol
from remsvc.client.backoff import Backoff
from remsvc.client.channel import Metadata, MetadataItems, call_metadata, open_async_channel
from remsvc.client.deadline import ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, RECONNECT_WAIT, Deadline
from remsvc.client.failures import from_grpc, from_status, no_connection
from remsvc.client.options import ConnectionOptions
from remsvc.errors import NO_ANSWER, RemSvcError

if TYPE_CHECKING:
    from typing_extensions import Self

    UnaryMethod = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


class AsyncConnection:
    """What all calls of :class:`~remsvc.client.aio.AsyncClient` share."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._channel: grpc.aio.Channel | None = None
        self._owned = True
        self._closed = False

    @classmethod
    def over(cls, channel: grpc.aio.Channel, options: ConnectionOptions) -> Self:
        """A client on a channel that somebody else owns and closes; ``options`` give token and target."""
        client = cls(options)
        client._channel = channel
        client._owned = False
        return client

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
        """Cancel what runs and close the channel, unless it came from :meth:`over`. Idempotent."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None and self._owned:
            await channel.close()

    async def connect(self, *, timeout: float | None = CONNECT_TIMEOUT, metadata: MetadataItems = ()) -> None:
        """Make sure that the server can be reached. ``timeout`` is in seconds.

        Raises:
            ServerError: it cannot; its ``sent`` is False.
            ConfigurationError: the options or the metadata cannot be used.
        """
        await self._connect(Deadline(timeout), call_metadata(self._options, metadata))

    def _open(self) -> grpc.aio.Channel:
        if self._closed:
            raise RemSvcError(f"{self._options.target}: the client is closed")
        if self._channel is None:
            self._channel = open_async_channel(self._options)
        return self._channel

    async def _unary(
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
            return await call(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise from_grpc(error, self._options, timeout=deadline.timeout) from error

    async def _idempotent(self, method: str, request: bytes, deadline: Deadline, metadata: Metadata) -> bytes:
        """A unary call that may be made again, as often as the deadline allows."""
        backoff = Backoff()
        while True:
            try:
                return await self._unary(method, request, deadline, metadata, limit=ATTEMPT_TIMEOUT)
            except NO_ANSWER:
                pause = backoff.next()
                if deadline.within(pause) < pause:
                    raise
            await asyncio.sleep(pause)

    async def _connect(self, deadline: Deadline, metadata: Metadata) -> None:
        """Make sure that there is a connection, so that a later error means "may have been sent".

        A ping does it: it changes nothing, and unlike the channel's state it tells why it fails.
        """
        state = self._open().get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return
        if state is grpc.ChannelConnectivity.SHUTDOWN:
            raise from_status("UNAVAILABLE", "the channel is closed", self._options, sent=False)
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            # Without waiting, gRPC would answer with the failure of some earlier attempt.
            patience = deadline.within(RECONNECT_WAIT)
            if await self._reach(patience, metadata, wait_for_ready=True) is None:
                return
        error = await self._reach(deadline.within(CONNECT_TIMEOUT), metadata)
        if error is not None:
            raise no_connection(error, self._options, deadline) from error

    async def _reach(
        self, timeout: float, metadata: Metadata, *, wait_for_ready: bool | None = None
    ) -> grpc.aio.AioRpcError | None:
        """Ping; the error where that shows that there is no connection, else None."""
        call: UnaryMethod = self._open().unary_unary(protocol.PING)
        try:
            await call(
                protocol.encode_ping(), timeout=timeout, metadata=metadata, wait_for_ready=wait_for_ready
            )
        except grpc.aio.AioRpcError as error:
            # Any other answer, even an error, comes from a server that takes calls.
            if isinstance(from_grpc(error, self._options), NO_ANSWER):
                return error
        return None
