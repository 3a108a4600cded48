"""The asyncio client."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING

from remsvc.client import protocol
from remsvc.client.aio_jobs import AsyncJobCalls
from remsvc.client.calls.aio import AsyncCalls
from remsvc.client.deadline import CONNECT_TIMEOUT, Deadline
from remsvc.client.metadata import MetadataItems
from remsvc.client.options import ConnectionOptions
from remsvc.client.protocol import decode_result
from remsvc.client.results import CommandResult, Pong, Status
from remsvc.client.transport import AsyncTransport
from remsvc.client.transport_choice import over_channel
from remsvc.command import Command

if TYPE_CHECKING:
    import grpc.aio
    from typing_extensions import Self


class AsyncClient(AsyncJobCalls):
    """A client of one server, for one event loop.

    Use it as an asynchronous context manager, or call :meth:`close`. Nothing connects before the
    first call. Calls may run side by side. A cancelled call is cancelled on the server as well,
    which ends its command; a job goes on.

    Args:
        options: how to reach the server, and as whom.
    """

    def __init__(self, options: ConnectionOptions) -> None:
        super().__init__(AsyncCalls(options))

    @classmethod
    def over(cls, channel: grpc.aio.Channel | AsyncTransport, options: ConnectionOptions) -> Self:
        """A client on a channel that somebody else owns and closes.

        Args:
            channel: a channel of gRPC's, or one of our transports.
            options: their token goes with each call, and their target names the server in errors.
        """
        client = cls(options)
        client._calls = AsyncCalls(options, over_channel(channel))
        return client

    @property
    def transport(self) -> str:
        """What carries the calls: ``http2`` or ``grpc``. Raises :class:`ConfigurationError`."""
        return self._calls.open().name

    async def __aenter__(self) -> Self:
        self._calls.open()
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
        await self._calls.close()

    async def connect(self, *, timeout: float | None = CONNECT_TIMEOUT, metadata: MetadataItems = ()) -> None:
        """Make sure that the server can be reached. ``timeout`` is in seconds.

        Raises:
            ServerError: it cannot; its ``sent`` is False.
            ConfigurationError: the options or the metadata cannot be used.
        """
        await self._calls.connect(Deadline(timeout), self._calls.headers(metadata))

    async def ping(
        self, data: bytes = b"", *, seq: int = 1, timeout: float | None = 10.0, metadata: MetadataItems = ()
    ) -> Pong:
        """Send ``data`` and have it echoed. ``timeout`` is in seconds and covers connecting.

        Raises:
            ServerError: no connection, or an error status.
            ConfigurationError: the options or the metadata cannot be used.
        """
        request = protocol.encode_ping(seq, data)
        started = time.perf_counter()
        headers = self._calls.headers(metadata)
        answer = await self._calls.unary(protocol.PING, request, Deadline(timeout), headers)
        return protocol.decode_pong(answer.message, time.perf_counter() - started)

    async def status(self, *, timeout: float | None = 10.0, metadata: MetadataItems = ()) -> Status:
        """The server's state. Parameters and errors as for :meth:`ping`."""
        headers = self._calls.headers(metadata)
        answer = await self._calls.unary(protocol.GET_STATUS, protocol.EMPTY, Deadline(timeout), headers)
        return protocol.decode_status(answer.message, answer.trailers)

    async def run(
        self, command: Command, *, tid: int = 1, timeout: float | None = None, metadata: MetadataItems = ()
    ) -> CommandResult:
        """Run one command and wait for its end. A non-zero exit code is a result, not an error.

        Args:
            command: what to run.
            tid: a number of the caller's choice, echoed in the result.
            timeout: seconds for connecting and the whole call; then the server ends the command.
            metadata: further metadata of the call.

        Raises:
            InvalidCommandError: before anything is sent.
            ServerError: its ``sent`` is False where the command certainly never reached the server.
            ProtocolError: the answer cannot be read.
        """
        deadline = Deadline(timeout)
        headers = self._calls.headers(metadata)
        command.validate()
        await self._calls.connect(deadline, headers)
        request = protocol.encode_command(command, tid)
        return decode_result((await self._calls.unary(protocol.RUN, request, deadline, headers)).message)

    async def run_many(
        self,
        commands: Sequence[Command],
        *,
        timeout: float | None = None,
        metadata: MetadataItems = (),
    ) -> AsyncGenerator[CommandResult, None]:
        """Run commands one after another over one stream, yielding each result as it comes.

        Commands are written while results are read, as fast as the server takes them. The n-th has
        the ``tid`` n, starting at 1. Closing the iterator early cancels the call.

        Args:
            commands: what to run.
            timeout: seconds for connecting and the whole stream.
            metadata: further metadata of the call.

        Raises:
            InvalidCommandError: before anything is sent, naming the command.
            ServerError: its ``sent`` is False where certainly no command reached the server.
            MissingResultsError: the stream ended without error, but not every command was answered.
            ProtocolError: an answer cannot be read, or belongs to no command or an answered one.
        """
        deadline = Deadline(timeout)
        headers = self._calls.headers(metadata)
        protocol.validate_all(commands)
        if not commands:
            return
        await self._calls.connect(deadline, headers)
        answers = protocol.AnswerSheet(len(commands))
        requests = protocol.encode_commands(commands)
        stream = self._calls.stream(protocol.RUN_STREAM, requests, deadline, headers)
        async with aclosing(stream):
            async for answer in stream:
                result = decode_result(answer)
                answers.enter(result)
                yield result
        answers.check_complete()
