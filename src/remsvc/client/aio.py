"""The asyncio client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from remsvc.client import protocol
from remsvc.client.aio_jobs import AsyncJobCalls
from remsvc.client.channel import MetadataItems, call_metadata
from remsvc.client.deadline import Deadline
from remsvc.client.failures import from_status
from remsvc.client.lossy import decode_result
from remsvc.client.results import CommandResult, Pong, Status
from remsvc.command import Command

T = TypeVar("T")

if TYPE_CHECKING:
    StreamCall = grpc.aio.StreamStreamCall[bytes, bytes]


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
        return protocol.decode_pong(answer, time.perf_counter() - started)

    async def status(self, *, timeout: float | None = 10.0, metadata: MetadataItems = ()) -> Status:
        """The server's state. Parameters and errors as for :meth:`ping`."""
        headers = call_metadata(self._options, metadata)
        answer = await self._unary(protocol.GET_STATUS, protocol.EMPTY, Deadline(timeout), headers)
        return protocol.decode_status(answer)

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
        return decode_result(
            await self._unary(protocol.RUN, protocol.encode_command(command, tid), deadline, headers)
        )

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
        call: StreamCall = self._open().stream_stream(protocol.RUN_STREAM)(
            timeout=deadline.remaining(), metadata=headers
        )
        outcome = _Outcome(call)
        writer = _Writer(call, commands)
        writing = asyncio.create_task(writer.write_all())
        try:
            async for answer in call:
                result = decode_result(answer)
                answers.enter(result)
                yield result
        except grpc.aio.AioRpcError as error:
            code, details = await outcome.of(error)
            if code != "OK":
                raise from_status(
                    code, details, self._options, sent=writer.started, timeout=timeout
                ) from error
        except asyncio.CancelledError:
            if writing.done() and not writing.cancelled() and (fault := writing.exception()):
                raise fault from None
            raise
        finally:
            call.cancel()
            writing.cancel()
            await asyncio.wait([writing])
        answers.check_complete()


class _Writer:
    """Writes the commands of a stream, while its answers are read elsewhere."""

    def __init__(self, call: StreamCall, commands: Sequence[Command]) -> None:
        self._call = call
        self._commands = commands
        self.started = False
        """Whether a command may have left."""

    async def write_all(self) -> None:
        call = self._call
        try:
            await call.wait_for_connection()
            self.started = True
            for tid, command in enumerate(self._commands, 1):
                await call.write(protocol.encode_command(command, tid))
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
    """The value of a coroutine that does not wait: gRPC offers an ended call's status only as such."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("the coroutine waits")
