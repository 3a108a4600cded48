"""The asyncio client's calls about durable jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from datetime import datetime

from remsvc.client import job_protocol
from remsvc.client.calls.aio import AsyncCalls
from remsvc.client.deadline import Deadline
from remsvc.client.job_protocol import Listing
from remsvc.client.jobs import Job, JobSpec, JobState, WatchEvent
from remsvc.client.metadata import MetadataItems
from remsvc.client.watch import OnDisconnect, Watch
from remsvc.errors import ServerError


class AsyncJobCalls:
    """Create, find, list, cancel and watch jobs.

    Every method raises :class:`~remsvc.errors.UnimplementedError` where the server has no jobs.

    Args:
        calls: what the methods are made of.
    """

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def create_job(
        self,
        spec: JobSpec,
        request_id: str,
        *,
        timeout: float = 30.0,
        repeat: bool = True,
        metadata: MetadataItems = (),
    ) -> Job:
        """Create a job, or find the one that this ``request_id`` created before.

        The same id and content give the same job, however often and from wherever. So the call is made
        again where no answer comes.

        Args:
            spec: what to run.
            request_id: 1 to 128 printable ASCII characters, which the caller chooses.
            timeout: seconds for connecting and all attempts.
            repeat: False: make one attempt, which gets no answer after 10 s at the latest; the caller decides
                whether another one follows.
            metadata: further metadata of the call.

        Raises:
            InvalidCommandError: before anything is sent.
            AlreadyExistsError: the id was used with other content.
            ResourceExhaustedError: the server's queue is full; nothing was created.
            ServerError: its ``sent`` is False where the server certainly got no request.
            ProtocolError: the answer cannot be read.
        """
        deadline = Deadline(timeout)
        headers = self._calls.headers(metadata)
        request = job_protocol.encode_create(spec, request_id)
        await self._calls.connect(deadline, headers)
        answer = await self._calls.repeatable(job_protocol.CREATE, request, deadline, headers, repeat=repeat)
        return job_protocol.decode_job(answer)

    async def get_job(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = 30.0,
        metadata: MetadataItems = (),
    ) -> Job:
        """A job by its id, or by the request id that created it.

        Raises:
            NotFoundError: there is none, or it is somebody else's.
            ServerError: no connection, or another error status.
            ProtocolError: the answer cannot be read.
        """
        headers = self._calls.headers(metadata)
        request = job_protocol.encode_get(job_id, request_id)
        answer = await self._calls.unary(job_protocol.GET, request, Deadline(timeout), headers)
        return job_protocol.decode_job(answer.message)

    async def list_jobs(
        self,
        *,
        states: Collection[JobState] = (),
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        page_size: int = 100,
        timeout: float | None = 30.0,
        metadata: MetadataItems = (),
    ) -> AsyncGenerator[Job, None]:
        """The caller's jobs, newest first, asked for as they are consumed.

        Args:
            states: only jobs in one of these; empty: in any.
            labels: only jobs that have all of these.
            created_after: only jobs created at this time or later; with a time zone.
            page_size: how many to ask for at once, 1 to 1,000.
            timeout: seconds for each page.
            metadata: further metadata of the calls.

        Raises:
            InvalidCommandError, ServerError, ProtocolError: as for :meth:`get_job`.
        """
        headers = self._calls.headers(metadata)
        listing = Listing(states, labels, created_after, page_size)
        while not listing.complete:
            request = listing.request()
            answer = await self._calls.unary(job_protocol.LIST, request, Deadline(timeout), headers)
            for job in listing.receive(answer.message):
                yield job

    async def cancel_job(
        self,
        job_id: str,
        *,
        reason: str = "",
        kill: bool = False,
        timeout: float = 30.0,
        repeat: bool = True,
        metadata: MetadataItems = (),
    ) -> Job:
        """Ask for a job to be ended; returns at once, with the job as it is then.

        Cancelling twice is harmless. So the call is made again where no answer comes.

        Args:
            job_id: the job.
            reason: for a person; becomes the job's reason.
            kill: end it at once, without TERM and grace.
            timeout: seconds for connecting and all attempts.
            repeat: see :meth:`create_job`.
            metadata: further metadata of the call.

        Raises:
            NotFoundError, ServerError, ProtocolError: as for :meth:`get_job`.
        """
        headers = self._calls.headers(metadata)
        request = job_protocol.encode_cancel(job_id, reason, kill)
        deadline = Deadline(timeout)
        answer = await self._calls.repeatable(job_protocol.CANCEL, request, deadline, headers, repeat=repeat)
        return job_protocol.decode_job(answer)

    async def watch_job(
        self,
        job_id: str,
        *,
        stdout_offset: int = 0,
        stderr_offset: int = 0,
        timeout: float | None = None,
        reconnect: bool = True,
        reconnect_timeout: float = 300.0,
        on_disconnect: OnDisconnect | None = None,
        metadata: MetadataItems = (),
    ) -> AsyncGenerator[WatchEvent, None]:
        """A job's state now, its output as it appears, its changes of state, the last being its end.

        The chunks of one stream come in order, without a byte lost or doubled, even where the
        connection breaks or the server restarts meanwhile. Bytes that the server does not have are
        a gap: :attr:`OutputChunk.dropped <remsvc.client.jobs.OutputChunk>`. Closing the iterator
        early ends the watch; the job goes on.

        Args:
            job_id: the job.
            stdout_offset, stderr_offset: where to begin, in bytes that the command has written;
                negative: without this output.
            timeout: seconds for all of it.
            reconnect: go on at the offsets reached when the connection breaks.
            reconnect_timeout: for how many seconds to try that without any contact.
            on_disconnect: called with the error each time the connection has broken or could not be
                made again, before the next attempt.
            metadata: further metadata of the calls.

        Raises:
            NotFoundError: there is no such job.
            DeadlineExceededError: the job has not ended within ``timeout``.
            ServerError: another error status, or no contact for too long.
            ProtocolError: the server's messages cannot be read.
        """
        deadline = Deadline(timeout)
        headers = self._calls.headers(metadata)
        watch = Watch(
            job_id,
            stdout_offset=stdout_offset,
            stderr_offset=stderr_offset,
            deadline=deadline,
            patience=reconnect_timeout if reconnect else None,
            options=self._calls.options,
            on_disconnect=on_disconnect,
        )
        while True:
            request = watch.begin()
            try:
                await self._calls.connect(deadline, headers)
                messages = self._calls.stream(job_protocol.WATCH, (request,), deadline, headers)
                async with aclosing(messages):
                    async for message in messages:
                        if (event := watch.receive(message)) is not None:
                            yield event
                        if watch.ended:
                            return
                for conclusion in watch.conclude():
                    yield conclusion
                if watch.ended:
                    return
                failure = watch.cut_short()
            except ServerError as error:
                failure = error
            await asyncio.sleep(watch.pause_after(failure))
