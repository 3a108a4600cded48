"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING

from remsvc.client import protocol
from remsvc.client.calls.blocking import BlockingCalls
from remsvc.client.deadline import CONNECT_TIMEOUT, Deadline
from remsvc.client.metadata import MetadataItems
from remsvc.client.options import ConnectionOptions
from remsvc.client.protocol import decode_result
from remsvc.client.results import CommandResult, Pong, Status
from remsvc.client.sync_jobs import JobCalls
from remsvc.command import Command

if TYPE_CHECKING:
    from typing_extensions import Self


class Client(JobCalls):
    """A client of one server, for blocking calls from any thread.

    Use it as a context manager, or call :meth:`close`. Nothing connects before the first call.
    :class:`~remsvc.client.aio.AsyncClient` describes the methods; only how one waits differs.

    Args:
        options: how to reach the server, and as whom.
    """

    def __init__(self, options: ConnectionOptions) -> None:
        super().__init__(BlockingCalls(options))

    def __enter__(self) -> Self:
        self._calls.open()
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
        self._calls.close()

    @property
    def transport(self) -> str:
        """What carries the calls: ``http2`` or ``grpc``. Raises :class:`ConfigurationError`."""
        return self._calls.open().name

    def connect(self, *, timeout: float | None = CONNECT_TIMEOUT, metadata: MetadataItems = ()) -> None:
        """See :meth:`AsyncClient.connect <remsvc.client.aio.AsyncClient.connect>`."""
        self._calls.connect(Deadline(timeout), self._calls.headers(metadata))

    def ping(
        self, data: bytes = b"", *, seq: int = 1, timeout: float | None = 10.0, metadata: MetadataItems = ()
    ) -> Pong:
        """See :meth:`AsyncClient.ping <remsvc.client.aio.AsyncClient.ping>`."""
        headers = self._calls.headers(metadata)
        request = protocol.encode_ping(seq, data)
        started = time.perf_counter()
        answer = self._calls.unary(protocol.PING, request, Deadline(timeout), headers)
        return protocol.decode_pong(answer.message, time.perf_counter() - started)

    def status(self, *, timeout: float | None = 10.0, metadata: MetadataItems = ()) -> Status:
        """See :meth:`AsyncClient.status <remsvc.client.aio.AsyncClient.status>`."""
        headers = self._calls.headers(metadata)
        answer = self._calls.unary(protocol.GET_STATUS, protocol.EMPTY, Deadline(timeout), headers)
        return protocol.decode_status(answer.message, answer.trailers)

    def run(
        self, command: Command, *, tid: int = 1, timeout: float | None = None, metadata: MetadataItems = ()
    ) -> CommandResult:
        """See :meth:`AsyncClient.run <remsvc.client.aio.AsyncClient.run>`."""
        deadline = Deadline(timeout)
        headers = self._calls.headers(metadata)
        command.validate()
        self._calls.connect(deadline, headers)
        request = protocol.encode_command(command, tid)
        return decode_result(self._calls.unary(protocol.RUN, request, deadline, headers).message)

    def run_many(
        self,
        commands: Sequence[Command],
        *,
        timeout: float | None = None,
        metadata: MetadataItems = (),
    ) -> Generator[CommandResult, None, None]:
        """See :meth:`AsyncClient.run_many <remsvc.client.aio.AsyncClient.run_many>`."""
        deadline = Deadline(timeout)
        headers = self._calls.headers(metadata)
        protocol.validate_all(commands)
        if not commands:
            return
        self._calls.connect(deadline, headers)
        answers = protocol.AnswerSheet(len(commands))
        requests = protocol.encode_commands(commands)
        with closing(self._calls.stream(protocol.RUN_STREAM, requests, deadline, headers)) as stream:
            for answer in stream:
                result = decode_result(answer)
                answers.enter(result)
                yield result
        answers.check_complete()
