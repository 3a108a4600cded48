"""Durable jobs: the ``remsvc.jobs.v1.JobService`` service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from remsvc.command import crc32hex
from remsvc.errors import InvalidCommandError
from remsvc.execution.job import Job, JobSpec, content_digest
from remsvc.execution.job_errors import (
    JobForgottenError,
    QueueFullError,
    RequestReusedError,
    WatchStoppedError,
)
from remsvc.execution.job_files import Piece
from remsvc.execution.jobs import Jobs
from remsvc.execution.journal import Filter, JournalError
from remsvc.execution.shell import check_length
from remsvc.server.authentication import CallContext
from remsvc.server.job_config import JobConfig
from remsvc.server.job_messages import (
    job_message,
    read_request_id,
    read_spec,
    read_time,
    state_from,
    with_defaults,
)
from remsvc.server.logs import fields
from remsvc.server.policy import Policy
from remsvc.server.requests import Malformed, parsed, parser, serialize
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

_logger = logging.getLogger("remsvc.job")

SERVICE_NAME = jobs_pb2.DESCRIPTOR.services_by_name["JobService"].full_name
_DOMAIN = "remsvc.jobs.v1"
_PAGE, _MAX_PAGE = 100, 1000
_PAGE_BYTES = 2 * 1024**2  # gRPC clients take 4 MiB, where they are not told otherwise
_RETRY_SECONDS = 1

T = TypeVar("T")


class _RefusedError(Exception):
    """A call that ends with this status; ``details`` are ``google.rpc`` messages."""

    def __init__(self, code: grpc.StatusCode, reason: str, *details: Any) -> None:
        self.code = code
        self.details = details
        super().__init__(reason)


class JobService:
    """Checks requests and hands them to the engine.

    Args:
        draining: done when the server is shutting down: nothing new is created, and watches end.
    """

    def __init__(self, jobs: Jobs, policy: Policy, config: JobConfig, draining: asyncio.Future[None]) -> None:
        self._jobs = jobs
        self._policy = policy
        self._config = config
        self._draining = draining
        draining.add_done_callback(lambda _: jobs.stop_watches())

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""

        def unary(handler: Any, message: type[Any]) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                parsed(_answering(handler)), parser(message), serialize
            )

        watch = grpc.unary_stream_rpc_method_handler(self._watch, parser(jobs_pb2.WatchJobRequest), serialize)
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "CreateJob": unary(self._create, jobs_pb2.CreateJobRequest),
                "GetJob": unary(self._get, jobs_pb2.GetJobRequest),
                "ListJobs": unary(self._list, jobs_pb2.ListJobsRequest),
                "CancelJob": unary(self._cancel, jobs_pb2.CancelJobRequest),
                "WatchJob": watch,
            },
        )

    async def _create(self, request: jobs_pb2.CreateJobRequest, context: CallContext) -> jobs_pb2.Job:
        if self._draining.done():
            raise _RefusedError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        request_id = read_request_id(request.request_id)
        spec = read_spec(request.spec)
        about = fields(
            request=request_id,
            identity=context.identity,
            peer=context.peer(),
            user=spec.user,
            src=spec.source,
            cmd=spec.text,
        )
        try:
            self._check(spec, request.hash)
        except _RefusedError as refused:
            _logger.warning("job refused %s %s", fields(reason=str(refused)), about)
            raise
        digest = content_digest(spec, request.spec.standard_input)
        job = await self._jobs.create(
            context.identity,
            request_id,
            digest,
            with_defaults(spec, self._config),
            request.spec.standard_input,
        )
        _logger.info("job %s %s", fields(job=job.id, state=job.state.value), about)
        return self._message(job)

    async def _get(self, request: jobs_pb2.GetJobRequest, context: CallContext) -> jobs_pb2.Job:
        if request.WhichOneof("key") is None:
            raise InvalidCommandError("expected id or request_id")
        if request.WhichOneof("key") == "request_id":
            found = await self._jobs.find(context.identity, request.request_id)
            if found is None:
                raise _not_found(request.request_id)
            return self._message(found)
        return self._message(await self._own(request.id, context, self._jobs.get))

    async def _list(
        self, request: jobs_pb2.ListJobsRequest, context: CallContext
    ) -> jobs_pb2.ListJobsResponse:
        size = min(request.page_size or _PAGE, _MAX_PAGE)
        if size < 0:
            raise InvalidCommandError("page_size: must not be negative")
        if request.page_token and not (request.page_token.isascii() and request.page_token.isdecimal()):
            raise InvalidCommandError("page_token: not one of this server's")
        wanted = Filter(
            identity=None if context.identity in self._config.admins else context.identity,
            states=[state_from(state) for state in request.states],
            labels=dict(request.labels),
            created_after=read_time("created_after", request.created_after)
            if request.HasField("created_after")
            else None,
            before_seq=int(request.page_token[:18]) if request.page_token else None,
        )
        jobs = await self._jobs.select(wanted, size + 1)
        answer = jobs_pb2.ListJobsResponse()
        room = _PAGE_BYTES
        for job in jobs[:size]:
            message = self._message(job)
            room -= message.ByteSize()
            if room < 0 and answer.jobs:
                break
            answer.jobs.append(message)
        if len(jobs) > len(answer.jobs):
            answer.next_page_token = str(jobs[len(answer.jobs) - 1].seq)
        return answer

    async def _cancel(self, request: jobs_pb2.CancelJobRequest, context: CallContext) -> jobs_pb2.Job:
        job = await self._own(request.id, context, self._jobs.get)
        reason = request.reason or f"cancelled by {context.identity}"
        _logger.info("job cancel %s", fields(job=job.id, identity=context.identity, reason=reason))
        return self._message(await self._jobs.cancel(job, reason[:500], kill=request.kill))

    async def _watch(self, request: Any, context: CallContext) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        try:
            if isinstance(request, Malformed):
                raise InvalidCommandError(request.reason)
            job = await self._own(request.id, context, self._jobs.look_up)
            offsets = [
                offset if offset >= 0 else None for offset in (request.stdout_offset, request.stderr_offset)
            ]
            async with aclosing(self._jobs.watch(job, offsets[0], offsets[1])) as events:
                async for event in events:
                    yield self._event(event)
        except Exception as error:  # noqa: BLE001  each becomes a status, or is raised again
            await _abort(error, context)

    def _event(self, event: Job | Piece) -> jobs_pb2.WatchJobResponse:
        if isinstance(event, Job):
            return jobs_pb2.WatchJobResponse(job=self._message(event))
        chunk = jobs_pb2.Chunk(offset=event.offset, data=event.data)
        if event.stream == "stdout":
            return jobs_pb2.WatchJobResponse(stdout=chunk)
        return jobs_pb2.WatchJobResponse(stderr=chunk)

    def _check(self, spec: JobSpec, hash: str) -> None:  # noqa: A002
        if spec.shell_command is not None:
            check_length(spec.shell_command, int(spec.powershell))
        if refusal := self._policy.refusal(spec.text):
            raise _RefusedError(grpc.StatusCode.PERMISSION_DENIED, refusal)
        content = spec.shell_command if spec.shell_command is not None else "\0".join(spec.argv)
        if hash and hash != crc32hex(content):
            raise _RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, "hash mismatch: command integrity check failed"
            )

    async def _own(
        self, job_id: str, context: CallContext, find: Callable[[str], Awaitable[Job | None]]
    ) -> Job:
        job = await find(job_id)
        if job is None or (job.identity != context.identity and context.identity not in self._config.admins):
            raise _not_found(job_id)
        return job

    def _message(self, job: Job) -> jobs_pb2.Job:
        return job_message(job, self._config.limits.retention_seconds)


def _not_found(name: str) -> _RefusedError:
    return _RefusedError(grpc.StatusCode.NOT_FOUND, f"there is no job {name[:128]!r}")


def _answering(
    handler: Callable[[Any, CallContext], Awaitable[T]],
) -> Callable[[Any, CallContext], Awaitable[T]]:
    @wraps(handler)
    async def answer(request: Any, context: CallContext) -> T:
        try:
            return await handler(request, context)
        except Exception as error:  # noqa: BLE001  each becomes a status, or is raised again
            await _abort(error, context)

    return answer


async def _abort(error: Exception, context: CallContext) -> NoReturn:
    """End the call with the status that belongs to an error."""
    refused = error
    if isinstance(error, InvalidCommandError):
        refused = _RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    elif isinstance(error, JobForgottenError):
        refused = _RefusedError(grpc.StatusCode.NOT_FOUND, str(error))
    elif isinstance(error, WatchStoppedError):
        refused = _RefusedError(grpc.StatusCode.UNAVAILABLE, str(error))
    elif isinstance(error, RequestReusedError):
        info = error_details_pb2.ErrorInfo(
            reason="REQUEST_ID_REUSED", domain=_DOMAIN, metadata={"job": error.job_id}
        )
        refused = _RefusedError(grpc.StatusCode.ALREADY_EXISTS, str(error), info)
    elif isinstance(error, QueueFullError | JournalError):
        _logger.error("%s", error)
        retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=_RETRY_SECONDS))
        refused = _RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), retry)
    if not isinstance(refused, _RefusedError):
        raise error
    metadata: tuple[tuple[str, bytes], ...] = ()
    if refused.details:
        status = status_pb2.Status(code=code_pb2.Code.Value(refused.code.name), message=str(refused))
        for detail in refused.details:
            status.details.add().Pack(detail)
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(refused.code, str(refused), metadata)
    raise error
