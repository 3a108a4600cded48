"""The asyncio client."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from remsvc.client import protocol
from remsvc.client.aio_jobs import AsyncJobCalls
from remsvc.client.deadline import Deadline
from remsvc.client.metadata import MetadataItems, call_metadata
from remsvc.client.protocol import decode_result
from remsvc.client.results import CommandResult, Pong, Status
from remsvc.command import Command


class AsyncClient(AsyncJobCalls):
    """A client of one server, for one event loop.

    Use it as an asynchronous context manager, or call :meth:`close`. Nothing connects before the
    first call. Calls may run side by side. A cancelled call is cancelled on the server as well,
    which ends its command; a job goes on.
    """

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
        headers = call_metadata(self._options, metadata)
        answer = await self._unary(protocol.PING, request, Deadline(timeout), headers)
        return protocol.decode_pong(answer.message, time.perf_counter() - started)

    async def status(self, *, timeout: float | None = 10.0, metadata: MetadataItems = ()) -> Status:
        """The server's state. Parameters and errors as for :meth:`ping`."""
        headers = call_metadata(self._options, metadata)
        answer = await self._unary(protocol.GET_STATUS, protocol.EMPTY, Deadline(timeout), headers)
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
        headers = call_metadata(self._options, metadata)
        command.validate()
        await self._connect(deadline, headers)
        request = protocol.encode_command(command, tid)
        return decode_result((await self._unary(protocol.RUN, request, deadline, headers)).message)

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
        headers = call_metadata(self._options, metadata)
        protocol.validate_all(commands)
        if not commands:
            return
        await self._connect(deadline, headers)
        answers = protocol.AnswerSheet(len(commands))
        requests = protocol.encode_commands(commands)
        stream = self._stream(protocol.RUN_STREAM, requests, deadline, headers)
        async with aclosing(stream):
            async for answer in stream:
                result = decode_result(answer)
                answers.enter(result)
                yield result
        answers.check_complete()
