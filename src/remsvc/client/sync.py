"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing

from remsvc.client import protocol
from remsvc.client.deadline import Deadline
from remsvc.client.metadata import MetadataItems, call_metadata
from remsvc.client.protocol import decode_result
from remsvc.client.results import CommandResult, Pong, Status
from remsvc.client.sync_jobs import JobCalls
from remsvc.command import Command


class Client(JobCalls):
    """A client of one server, for blocking calls from any thread.

    Use it as a context manager, or call :meth:`close`. Nothing connects before the first call.
    :class:`~remsvc.client.aio.AsyncClient` describes the methods; only how one waits differs.
    """

    def ping(
        self, data: bytes = b"", *, seq: int = 1, timeout: float | None = 10.0, metadata: MetadataItems = ()
    ) -> Pong:
        """See :meth:`AsyncClient.ping <remsvc.client.aio.AsyncClient.ping>`."""
        headers = call_metadata(self._options, metadata)
        request = protocol.encode_ping(seq, data)
        started = time.perf_counter()
        answer = self._unary(protocol.PING, request, Deadline(timeout), headers)
        return protocol.decode_pong(answer.message, time.perf_counter() - started)

    def status(self, *, timeout: float | None = 10.0, metadata: MetadataItems = ()) -> Status:
        """See :meth:`AsyncClient.status <remsvc.client.aio.AsyncClient.status>`."""
        headers = call_metadata(self._options, metadata)
        answer = self._unary(protocol.GET_STATUS, protocol.EMPTY, Deadline(timeout), headers)
        return protocol.decode_status(answer.message, answer.trailers)

    def run(
        self, command: Command, *, tid: int = 1, timeout: float | None = None, metadata: MetadataItems = ()
    ) -> CommandResult:
        """See :meth:`AsyncClient.run <remsvc.client.aio.AsyncClient.run>`."""
        deadline = Deadline(timeout)
        headers = call_metadata(self._options, metadata)
        command.validate()
        self._connect(deadline, headers)
        request = protocol.encode_command(command, tid)
        return decode_result(self._unary(protocol.RUN, request, deadline, headers).message)

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
        requests = protocol.encode_commands(commands)
        with closing(self._stream(protocol.RUN_STREAM, requests, deadline, headers)) as stream:
            for answer in stream:
                result = decode_result(answer)
                answers.enter(result)
                yield result
        answers.check_complete()
