"""The blocking client's calls about durable jobs."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Mapping
from contextlib import closing
from datetime import datetime

from remsvc.client import job_protocol
from remsvc.client.calls.blocking import BlockingCalls
from remsvc.client.deadline import Deadline
from remsvc.client.job_protocol import Listing
from remsvc.client.jobs import Job, JobSpec, JobState, WatchEvent
from remsvc.client.metadata import MetadataItems
from remsvc.client.watch import OnDisconnect, Watch
from remsvc.errors import ServerError


class JobCalls:
    """Create, find, list, cancel and watch jobs.

    :class:`~remsvc.client.aio_jobs.AsyncJobCalls` describes the methods; only how one waits differs.

    Args:
        calls: what the methods are made of.
    """

    def __init__(self, calls: BlockingCalls) -> None:
        self._calls = calls

    def create_job(
        self,
        spec: JobSpec,
        request_id: str,
        *,
        timeout: float = 30.0,
        repeat: bool = True,
        metadata: MetadataItems = (),
    ) -> Job:
        """See :meth:`AsyncClient.create_job <remsvc.client.aio_jobs.AsyncJobCalls.create_job>`."""
        deadline = Deadline(timeout)
        headers = self._calls.headers(metadata)
        request = job_protocol.encode_create(spec, request_id)
        self._calls.connect(deadline, headers)
        answer = self._calls.repeatable(job_protocol.CREATE, request, deadline, headers, repeat=repeat)
        return job_protocol.decode_job(answer)

    def get_job(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = 30.0,
        metadata: MetadataItems = (),
    ) -> Job:
        """See :meth:`AsyncClient.get_job <remsvc.client.aio_jobs.AsyncJobCalls.get_job>`."""
        headers = self._calls.headers(metadata)
        request = job_protocol.encode_get(job_id, request_id)
        answer = self._calls.unary(job_protocol.GET, request, Deadline(timeout), headers)
        return job_protocol.decode_job(answer.message)

    def list_jobs(
        self,
        *,
        states: Collection[JobState] = (),
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        page_size: int = 100,
        timeout: float | None = 30.0,
        metadata: MetadataItems = (),
    ) -> Generator[Job, None, None]:
        """See :meth:`AsyncClient.list_jobs <remsvc.client.aio_jobs.AsyncJobCalls.list_jobs>`."""
        headers = self._calls.headers(metadata)
        listing = Listing(states, labels, created_after, page_size)
        while not listing.complete:
            request = listing.request()
            answer = self._calls.unary(job_protocol.LIST, request, Deadline(timeout), headers)
            yield from listing.receive(answer.message)

    def cancel_job(
        self,
        job_id: str,
        *,
        reason: str = "",
        kill: bool = False,
        timeout: float = 30.0,
        repeat: bool = True,
        metadata: MetadataItems = (),
    ) -> Job:
        """See :meth:`AsyncClient.cancel_job <remsvc.client.aio_jobs.AsyncJobCalls.cancel_job>`."""
        headers = self._calls.headers(metadata)
        request = job_protocol.encode_cancel(job_id, reason, kill)
        deadline = Deadline(timeout)
        answer = self._calls.repeatable(job_protocol.CANCEL, request, deadline, headers, repeat=repeat)
        return job_protocol.decode_job(answer)

    def watch_job(
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
    ) -> Generator[WatchEvent, None, None]:
        """See :meth:`AsyncClient.watch_job <remsvc.client.aio_jobs.AsyncJobCalls.watch_job>`."""
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
                self._calls.connect(deadline, headers)
                with closing(
                    self._calls.stream(job_protocol.WATCH, (request,), deadline, headers)
                ) as messages:
                    for message in messages:
                        if (event := watch.receive(message)) is not None:
                            yield event
                        if watch.ended:
                            return
                yield from watch.conclude()
                if watch.ended:
                    return
                failure = watch.cut_short()
            except ServerError as error:
                failure = error
            time.sleep(watch.pause_after(failure))
