"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from remsvc.client import protocol
from remsvc.client.channel import Metadata, MetadataItems, call_metadata, open_channel
from remsvc.client.deadline import CONNECT_TIMEOUT, Deadline
from remsvc.client.failures import from_grpc, no_connection
from remsvc.client.lossy import decode_result
from remsvc.client.options import ConnectionOptions
from remsvc.client.results import CommandResult, Pong, Status
from remsvc.command import Command
from remsvc.errors import RemSvcError, ServerError

if TYPE_CHECKING:
    from typing_extensions import Self

    UnaryMethod = grpc.UnaryUnaryMultiCallable[bytes, bytes]
    StreamMethod = grpc.StreamStreamMultiCallable[bytes, bytes]


class Client:
    """A client of one server, for blocking calls from any thread.

    Use it as a context manager, or call :meth:`close`. Nothing connects before the first call.
    :class:`~remsvc.client.aio.AsyncClient` describes the methods; only how one waits differs.
    """

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._channel: grpc.Channel | None = None
        self._connected = False
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

    def ping(
        self, data: bytes = b"", *, seq: int = 1, timeout: float | None = 10.0, metadata: MetadataItems = ()
    ) -> Pong:
        """See :meth:`AsyncClient.ping <remsvc.client.aio.AsyncClient.ping>`."""
        headers = call_metadata(self._options, metadata)
        request = protocol.encode_ping(seq, data)
        started = time.perf_counter()
        answer = self._unary(protocol.PING, request, Deadline(timeout), headers)
        return protocol.decode_pong(answer, time.perf_counter() - started)

    def status(self, *, timeout: float | None = 10.0, metadata: MetadataItems = ()) -> Status:
        """See :meth:`AsyncClient.status <remsvc.client.aio.AsyncClient.status>`."""
        headers = call_metadata(self._options, metadata)
        return protocol.decode_status(
            self._unary(protocol.GET_STATUS, protocol.EMPTY, Deadline(timeout), headers)
        )

    def run(
        self, command: Command, *, tid: int = 1, timeout: float | None = None, metadata: MetadataItems = ()
    ) -> CommandResult:
        """See :meth:`AsyncClient.run <remsvc.client.aio.AsyncClient.run>`."""
        deadline = Deadline(timeout)
        headers = call_metadata(self._options, metadata)
        command.validate()
        self._connect(deadline, headers)
        return decode_result(
            self._unary(protocol.RUN, protocol.encode_command(command, tid), deadline, headers)
        )

    def run_many(
        self,
        commands: Sequence[Command],
        *,
        timeout: float | None = None,
        metadata: MetadataItems = (),
    ) -> Generator[CommandResult, None, None]:
        """See :meth:`AsyncClient.run_many <remsvc.client.aio.AsyncClient.run_many>`."""
        deadline = Deadline(timeout)
        headers = call_metadata(self._options, metadata)
        protocol.validate_all(commands)
        if not commands:
            return
        self._connect(deadline, headers)
        answers = protocol.AnswerSheet(len(commands))
        sent = False

        def requests() -> Iterator[bytes]:  # gRPC consumes it in a thread that ends with the call
            nonlocal sent
            for tid, command in enumerate(commands, 1):
                request = protocol.encode_command(command, tid)
                sent = True
                yield request

        stream: StreamMethod = self._open().stream_stream(protocol.RUN_STREAM)
        call = stream(requests(), timeout=deadline.remaining(), metadata=headers)
        try:
            for answer in call:
                result = decode_result(answer)
                answers.enter(result)
                yield result
        except grpc.RpcError as error:
            raise self._failure(error, deadline, sent=sent) from error
        finally:
            call.cancel()
        answers.check_complete()

    def _open(self) -> grpc.Channel:
        if self._closed:
            raise RemSvcError(f"{self._options.target}: the client is closed")
        if self._channel is None:
            self._channel = open_channel(self._options)
        return self._channel

    def _unary(self, method: str, request: bytes, deadline: Deadline, metadata: Metadata) -> bytes:
        call: UnaryMethod = self._open().unary_unary(method)
        try:
            return call(request, timeout=deadline.remaining(), metadata=metadata)
        except grpc.RpcError as error:
            raise self._failure(error, deadline) from error

    def _failure(self, error: grpc.RpcError, deadline: Deadline, *, sent: bool = True) -> ServerError:
        failure = from_grpc(error, self._options, sent=sent, timeout=deadline.timeout)
        if failure.code == "UNAVAILABLE":
            self._connected = False
        return failure

    def _connect(self, deadline: Deadline, metadata: Metadata) -> None:
        """Make sure that there is a connection, by a ping: see ``AsyncClient``.

        A blocking channel tells its state only to a thread of its own, so it is remembered here.
        """
        if self._connected:
            return
        call: UnaryMethod = self._open().unary_unary(protocol.PING)
        try:
            call(protocol.encode_ping(), timeout=deadline.within(CONNECT_TIMEOUT), metadata=metadata)
        except grpc.RpcError as error:
            failure = no_connection(error, self._options, deadline)
            if failure.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise failure from error
        self._connected = True
