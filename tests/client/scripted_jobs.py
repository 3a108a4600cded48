"""A jobs server whose jobs do what a test wants: a real ``grpc.aio`` server in a thread of its own.

Also a proxy in front of it, which cuts connections after so many bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import grpc.aio

from remsvc_proto import RemSvc_pb2
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

T = TypeVar("T")
DEADLINE = 30.0
ENDED = (jobs_pb2.SUCCEEDED, jobs_pb2.FAILED, jobs_pb2.CANCELLED, jobs_pb2.TIMED_OUT, jobs_pb2.LOST)


@dataclass
class ScriptedJob:
    """A job that exists in the test alone: it prints and ends when the test says so."""

    message: jobs_pb2.Job
    output: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    chunk: int = 1 << 16
    """The most bytes of one message."""
    leap: int = 0
    """How many bytes after each message are dropped, as if the reader had been too slow for them."""
    overlap: int = 0
    """How many bytes before the offset asked for are sent once more, as no server should."""

    def size(self, stream: str) -> int:
        return len(self.output[stream])

    def piece(self, stream: str, offset: int) -> tuple[int, bytes]:
        """Where the next kept piece from ``offset`` on begins, and its bytes."""
        sizes = getattr(self.message, stream)
        head, tail = sizes.head_bytes, sizes.head_bytes + sizes.dropped_bytes
        if sizes.dropped_bytes and head <= offset < tail:
            offset = tail
        end = offset + self.chunk
        if sizes.dropped_bytes and offset < head:
            end = min(end, head)
        offset = max(0, offset - self.overlap)
        return offset, bytes(self.output[stream][offset:end])


class ScriptedJobs:
    """Serves jobs on a free port of 127.0.0.1, until :meth:`close`.

    Attributes:
        jobs: by id.
        requests: what arrived: the method's name and the message.
        refusals: for each method's name, statuses to answer with, one call after another, before it
            answers as it should: ``(code, details, trailing metadata)``.
        unanswered: for each method's name, how many calls to carry out and then not answer.
        silent: names of methods that do not answer, as long as they are in it.
        watch_faults: for one watch after another, after how many messages to end it, and how: a
            code, or None to end it without error.
        silence: for how many seconds such a watch says nothing before it ends.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, ScriptedJob] = {}
        self.requests: list[tuple[str, Any]] = []
        self.refusals: dict[str, list[tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]]] = {}
        self.unanswered: dict[str, int] = {}
        self.silent: set[str] = set()
        self.watch_faults: list[tuple[int, grpc.StatusCode | None]] = []
        self.silence = 0.0
        self.watches = 0
        """How many watches are open."""
        self._ids = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ThreadPool of scripted jobs")
        self._thread.start()
        self.port = 0
        self._do(self._start())

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """End all calls, stop serving. Idempotent."""
        if self._thread.is_alive():
            self.stop()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(DEADLINE)
            self._loop.close()

    def stop(self) -> None:
        """Go down, as if the server's process were killed; the jobs stay. Idempotent."""
        self._do(self._server.stop(grace=None))

    def start(self) -> None:
        """Come back on the same port."""
        self._do(self._start())

    def add(self, stdout: bytes = b"", stderr: bytes = b"", **fields: Any) -> ScriptedJob:
        """A job that runs and has printed something."""
        job_id = f"job{next(self._ids)}"
        message = jobs_pb2.Job(**{"id": job_id, "state": jobs_pb2.RUNNING, **fields})
        message.create_time.GetCurrentTime()
        self.jobs[job_id] = job = ScriptedJob(message)
        self.write(job, stdout, stderr)
        return job

    def write(self, job: ScriptedJob, stdout: bytes = b"", stderr: bytes = b"") -> None:
        """Have the job print something."""

        async def write() -> None:
            for stream, data in (("stdout", stdout), ("stderr", stderr)):
                job.output[stream] += data
                sizes = getattr(job.message, stream)
                sizes.total_bytes = job.size(stream)
                if not sizes.dropped_bytes:
                    sizes.head_bytes = job.size(stream)
            await self._changed()

        self._do(write())

    def change(self, job: ScriptedJob, state: Any, **fields: Any) -> None:
        """Change the job's state, and other fields of its message."""

        async def change() -> None:
            job.message.MergeFrom(jobs_pb2.Job(state=state, **fields))
            if state in ENDED:
                job.message.end_time.GetCurrentTime()
            await self._changed()

        self._do(change())

    def finish(self, stdout: bytes = b"", stderr: bytes = b"", exit_code: int = 0) -> ScriptedJob:
        """A job that has ended."""
        job = self.add(stdout, stderr)
        self.change(job, jobs_pb2.FAILED if exit_code else jobs_pb2.SUCCEEDED, exit_code=exit_code)
        return job

    def asked(self, method: str) -> list[Any]:
        """The requests that came to one method."""
        return [request for name, request in self.requests if name == method]

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    async def _start(self) -> None:
        self._change = asyncio.Condition()
        self._server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 5_000)]
        )
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                self._unary(name, handler), kind.FromString, lambda message: message.SerializeToString()
            )
            for name, handler, kind in (
                ("CreateJob", self._create, jobs_pb2.CreateJobRequest),
                ("GetJob", self._get, jobs_pb2.GetJobRequest),
                ("ListJobs", self._list, jobs_pb2.ListJobsRequest),
                ("CancelJob", self._cancel, jobs_pb2.CancelJobRequest),
            )
        }
        methods["WatchJob"] = grpc.unary_stream_rpc_method_handler(
            self._watch, jobs_pb2.WatchJobRequest.FromString, lambda message: message.SerializeToString()
        )
        ping = grpc.unary_unary_rpc_method_handler(self._ping)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("remsvc.jobs.v1.JobService", methods),
                grpc.method_handlers_generic_handler("RS.RemSvc", {"Ping": ping}),
            )
        )
        end = asyncio.get_running_loop().time() + DEADLINE
        while True:
            try:
                self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
                break
            except RuntimeError:  # the port is not free again yet
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.05)
        await self._server.start()

    async def _changed(self) -> None:
        async with self._change:
            self._change.notify_all()

    def _unary(self, name: str, handler: Callable[[Any, Any], Coroutine[Any, Any, Any]]) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            self.requests.append((name, request))
            while name in self.silent:
                await asyncio.sleep(0.01)
            if refusals := self.refusals.get(name):
                code, details, metadata = refusals.pop(0)
                await context.abort(code, details, metadata)
            answer = await handler(request, context)
            if self.unanswered.get(name, 0) > 0:
                self.unanswered[name] -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
            return answer

        return handle

    async def _ping(self, request: bytes, context: Any) -> bytes:
        return RemSvc_pb2.PongMsg().SerializeToString()

    async def _create(self, request: jobs_pb2.CreateJobRequest, context: Any) -> jobs_pb2.Job:
        for job in self.jobs.values():
            if job.message.request_id == request.request_id:
                return job.message
        job_id = f"job{next(self._ids)}"
        message = jobs_pb2.Job(
            id=job_id, request_id=request.request_id, spec=request.spec, state=jobs_pb2.RUNNING
        )
        message.spec.standard_input = b""
        message.create_time.GetCurrentTime()
        self.jobs[job_id] = ScriptedJob(message)
        return message

    async def _get(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.Job:
        key = request.WhichOneof("key")
        for job in self.jobs.values():
            if getattr(job.message, key) == getattr(request, key):
                return job.message
        return await self._not_found(context)

    async def _list(self, request: jobs_pb2.ListJobsRequest, context: Any) -> jobs_pb2.ListJobsResponse:
        found = [
            job.message
            for job in reversed(self.jobs.values())
            if (not request.states or job.message.state in request.states)
            and request.labels.items() <= job.message.spec.labels.items()
            and job.message.create_time.ToNanoseconds() >= request.created_after.ToNanoseconds()
        ]
        start = int(request.page_token or 0)
        end = start + request.page_size
        return jobs_pb2.ListJobsResponse(
            jobs=found[start:end], next_page_token=str(end) if end < len(found) else ""
        )

    async def _cancel(self, request: jobs_pb2.CancelJobRequest, context: Any) -> jobs_pb2.Job:
        job = self.jobs.get(request.id)
        return job.message if job else await self._not_found(context)

    async def _not_found(self, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such job")

    async def _watch(
        self, request: jobs_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        self.requests.append(("WatchJob", request))
        if refusals := self.refusals.get("WatchJob"):
            await context.abort(*refusals.pop(0))
        limit, code = self.watch_faults.pop(0) if self.watch_faults else (None, None)
        job = self.jobs.get(request.id)
        if job is None:
            await self._not_found(context)
        self.watches += 1
        events = self._events(job, request.stdout_offset, request.stderr_offset)
        try:
            sent = 0
            while sent != limit:
                try:
                    yield await events.__anext__()
                except StopAsyncIteration:
                    return
                sent += 1
            await asyncio.sleep(self.silence)
            if code is not None:
                await context.abort(code, "as the test wants it")
        finally:
            self.watches -= 1
            await events.aclose()

    async def _events(
        self, job: ScriptedJob, stdout_offset: int, stderr_offset: int
    ) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
        offsets = {"stdout": stdout_offset, "stderr": stderr_offset}
        state = job.message.state
        yield jobs_pb2.WatchJobResponse(job=job.message)
        while True:
            progress = False
            for stream, offset in offsets.items():
                if 0 <= offset < job.size(stream):
                    begin, data = job.piece(stream, offset)
                    offsets[stream] = begin + len(data) + job.leap
                    progress = True
                    if not data:  # the tail was dropped
                        continue
                    chunk = jobs_pb2.Chunk(offset=begin, data=data)
                    yield jobs_pb2.WatchJobResponse(**{stream: chunk})
            if progress:
                continue
            if job.message.state != state:
                state = job.message.state
                yield jobs_pb2.WatchJobResponse(job=job.message)
            elif state in ENDED:
                yield jobs_pb2.WatchJobResponse(job=job.message)
            if state in ENDED:
                return
            async with self._change:
                while job.message.state == state and not any(
                    0 <= offset < job.size(stream) for stream, offset in offsets.items()
                ):
                    await self._change.wait()


class CuttingProxy:
    """Forwards connections to a port; cuts one after another once so many bytes came from the server.

    Attributes:
        cuts: byte counts, used up from the front; then connections are left alone.
        connections: how many were made.
        idle_seconds: after so long a silence of the server a connection is cut; None: never.
    """

    def __init__(self, port: int, *, idle_seconds: float | None = None) -> None:
        self.idle_seconds = idle_seconds
        self.cuts: list[int] = []
        self.connections = 0
        self._to = port
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="ThreadPool of the proxy")]
        self._threads[0].start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Cut all connections, stop listening."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            _cut(connection)
        for thread in self._threads:
            thread.join(DEADLINE)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            self.connections += 1
            self._open |= {client, server}
            left = self.cuts.pop(0) if self.cuts else None
            server.settimeout(self.idle_seconds)
            for source, sink, limit in ((client, server, None), (server, client, left)):
                thread = threading.Thread(
                    target=self._forward, args=(source, sink, limit), name="ThreadPool of the proxy"
                )
                self._threads.append(thread)
                thread.start()

    def _forward(self, source: socket.socket, sink: socket.socket, left: int | None) -> None:
        with suppress(OSError):
            while left is None or left > 0:
                data = source.recv(65536 if left is None else min(left, 65536))
                if not data:
                    break
                sink.sendall(data)
                if left is not None:
                    left -= len(data)
        _cut(source)
        _cut(sink)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
