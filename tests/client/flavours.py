"""Both clients behind one blocking face, so that a test can be written once for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from remsvc.client import AsyncClient, Client, CommandResult, ConnectionOptions, Job, JobSpec, Pong, Status
from remsvc.client.jobs import WatchEvent
from remsvc.command import Command

T = TypeVar("T")


class AnyClient(Protocol):
    def connect(self, **others: Any) -> None: ...
    def ping(self, data: bytes = b"", **others: Any) -> Pong: ...
    def status(self, **others: Any) -> Status: ...
    def run(self, command: Command, **others: Any) -> CommandResult: ...
    def run_many(self, commands: Sequence[Command], **others: Any) -> Iterator[CommandResult]: ...
    def create_job(self, spec: JobSpec, request_id: str, **others: Any) -> Job: ...
    def get_job(self, job_id: str | None = None, **others: Any) -> Job: ...
    def list_jobs(self, **others: Any) -> Iterator[Job]: ...
    def cancel_job(self, job_id: str, **others: Any) -> Job: ...
    def watch_job(self, job_id: str, **others: Any) -> Iterator[WatchEvent]: ...


class _AsyncioFlavour:
    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._wait = loop.run_until_complete

    def connect(self, **others: Any) -> None:
        self._wait(self._client.connect(**others))

    def ping(self, data: bytes = b"", **others: Any) -> Pong:
        return self._wait(self._client.ping(data, **others))

    def status(self, **others: Any) -> Status:
        return self._wait(self._client.status(**others))

    def run(self, command: Command, **others: Any) -> CommandResult:
        return self._wait(self._client.run(command, **others))

    def run_many(self, commands: Sequence[Command], **others: Any) -> Iterator[CommandResult]:
        return self._each(self._client.run_many(commands, **others))

    def create_job(self, spec: JobSpec, request_id: str, **others: Any) -> Job:
        return self._wait(self._client.create_job(spec, request_id, **others))

    def get_job(self, job_id: str | None = None, **others: Any) -> Job:
        return self._wait(self._client.get_job(job_id, **others))

    def list_jobs(self, **others: Any) -> Iterator[Job]:
        return self._each(self._client.list_jobs(**others))

    def cancel_job(self, job_id: str, **others: Any) -> Job:
        return self._wait(self._client.cancel_job(job_id, **others))

    def watch_job(self, job_id: str, **others: Any) -> Iterator[WatchEvent]:
        return self._each(self._client.watch_job(job_id, **others))

    def _each(self, results: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while True:
                yield self._wait(results.__anext__())
        except StopAsyncIteration:
            return
        finally:
            self._wait(results.aclose())


@contextmanager
def asyncio_client(options: ConnectionOptions) -> Iterator[AnyClient]:
    loop = asyncio.new_event_loop()
    client = AsyncClient(options)
    try:
        yield _AsyncioFlavour(client, loop)
        loop.run_until_complete(client.close())
        # A cancelled call's last task, gRPC's own, ends when its core has said so.
        if left := asyncio.all_tasks(loop):
            _, pending = loop.run_until_complete(asyncio.wait(left, timeout=30))
            assert not pending, f"tasks left behind: {pending}"
    finally:
        loop.run_until_complete(client.close())
        loop.close()


@contextmanager
def blocking_client(options: ConnectionOptions) -> Iterator[AnyClient]:
    with Client(options) as client:
        yield client
