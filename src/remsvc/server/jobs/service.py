"""Answers the calls of ``remsvc.jobs.v1.JobService``, the service of durable jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial

from remsvc.command import crc32hex
from remsvc.errors import InvalidCommandError
from remsvc.execution.jobs.files import Piece
from remsvc.execution.jobs.gate import JobPermission
from remsvc.execution.jobs.jobs import Jobs
from remsvc.execution.jobs.model import (
    JobContent,
    JobRecord,
    content_digest,
)
from remsvc.server.audit.audit import Audit
from remsvc.server.calls.call import Call
from remsvc.server.calls.methods import Method
from remsvc.server.calls.statuses import status_of
from remsvc.server.calls.verification import CREDENTIALS_ENDED, CallVerification
from remsvc.server.jobs.config import JobConfig
from remsvc.server.jobs.messages import (
    MOST_BESIDE_DATA,
    chunk_bytes,
    job_message,
    read_content,
    read_filter,
    read_request_id,
    spec_message,
    with_defaults,
)
from remsvc.server.logs import fields
from remsvc.server.policy.decision import CommandRequest, Decision
from remsvc.server.policy.in_force import PolicyInForce
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode
from remsvc.validation import ID, REASON, REQUEST_ID, SOUGHT_REQUEST_ID
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

_logger = logging.getLogger("remsvc.job")

SERVICE_NAME = jobs_pb2.DESCRIPTOR.services_by_name["JobService"].full_name
_METHOD = f"/{SERVICE_NAME}/"
_PAGE, _MAX_PAGE = 100, 1000
_KIB, _MIB = 1024, 1024**2
_PAGE_BYTES = 2 * _MIB  # gRPC clients take 4 MiB, where they are not told otherwise
_SPECS, _LARGEST_KNOWN = 64, 16 * _KIB


class JobService:
    """Answers the calls of the service: checks each request, has it permitted and audited, and asks the jobs.

    Args:
        jobs: the durable jobs of the server.
        verification: is asked again whether a caller may call, before a job is claimed and when it starts.
        policy: permits jobs.
        audit: is told what was permitted, refused and looked at, before it happens.
        config: what jobs may ask for, and who is an administrator.
        draining: done when the server is shutting down: from then on nothing is created, and watches end.
    """

    def __init__(
        self,
        jobs: Jobs,
        verification: CallVerification,
        policy: PolicyInForce,
        audit: Audit,
        config: JobConfig,
        draining: asyncio.Future[None],
    ) -> None:
        self._jobs = jobs
        self._verification = verification
        self._policy = policy
        self._audit = audit
        self._config = config
        self._draining = draining
        self._specs: dict[int, tuple[JobContent, jobs_pb2.JobSpec]] = {}
        draining.add_done_callback(lambda _: jobs.stop_watches())

    def use(self, config: JobConfig) -> None:
        """Answer by this configuration from now on."""
        self._config = config

    def methods(self) -> tuple[Method, ...]:
        """The methods of the service."""
        return (
            Method(_METHOD + "CreateJob", jobs_pb2.CreateJobRequest, 4 * _MIB, one=self._create),
            Method(_METHOD + "GetJob", jobs_pb2.GetJobRequest, 16 * _KIB, one=self._get),
            Method(_METHOD + "ListJobs", jobs_pb2.ListJobsRequest, 128 * _KIB, one=self._list),
            Method(_METHOD + "CancelJob", jobs_pb2.CancelJobRequest, 16 * _KIB, one=self._cancel),
            Method(_METHOD + "WatchJob", jobs_pb2.WatchJobRequest, 16 * _KIB, many=self._watch),
        )

    async def _create(self, request: jobs_pb2.CreateJobRequest, call: Call) -> jobs_pb2.Job:
        content = None
        try:
            request_id = read_request_id(request.request_id)
            content = read_content(request.spec)
            return await self._create_permitted(request, request_id, content, call)
        except Exception as error:
            if (refused := status_of(error)) is not None:
                request_id = request.request_id[: REQUEST_ID.most]
                noted = self._audit.refuse(
                    call,
                    _METHOD + "CreateJob",
                    content,
                    code=refused.code.name,
                    reason=str(refused),
                    rule=refused.rule,
                    request_id=request_id,
                )
                if noted:
                    about = self._about(call, request_id, content or JobContent())
                    _logger.warning("job refused %s %s", fields(reason=str(refused)), about)
            raise

    async def _create_permitted(
        self, request: jobs_pb2.CreateJobRequest, request_id: str, content: JobContent, call: Call
    ) -> jobs_pb2.Job:
        digest = content_digest(content, request.spec.standard_input)
        try:
            decision, permission = await self._permit(content, request, call)
        except RefusedError as refused:
            if refused.code is StatusCode.PERMISSION_DENIED:
                made = await self._jobs.find(call.identity, request_id)
                if made is not None and made.digest == digest:
                    # It was permitted when it was first asked for, and nothing new is to run.
                    self._audit.permit_access(call, _METHOD + "CreateJob", made)
                    return self._message(made)
            raise
        content = decision.limits.of_job(with_defaults(content, self._config))
        job = await self._jobs.create(
            call.identity, request_id, digest, content, request.spec.standard_input, permission
        )
        _logger.info(
            "job %s %s", fields(job=job.id, state=job.state.value), self._about(call, request_id, content)
        )
        return self._message(job)

    def _about(self, call: Call, request_id: str, content: JobContent) -> str:
        """A job that was asked for, as log lines show it."""
        return fields(
            request=request_id,
            identity=call.identity,
            peer=call.peer,
            user=content.user,
            src=content.source,
            cmd=self._audit.redact(content.text),
        )

    async def _get(self, request: jobs_pb2.GetJobRequest, call: Call) -> jobs_pb2.Job:
        if request.WhichOneof("key") is None:
            raise InvalidCommandError("expected id or request_id")
        if request.WhichOneof("key") == "request_id":
            SOUGHT_REQUEST_ID.check(request.request_id)
            found = await self._jobs.find(call.identity, request.request_id)
            if found is None:
                raise _not_found(request.request_id)
            return self._message(found)
        job = await self._own(request.id, call, "GetJob", self._jobs.get)
        if job.identity != call.identity:
            self._audit.permit_access(call, _METHOD + "GetJob", job)
        return self._message(job)

    async def _list(self, request: jobs_pb2.ListJobsRequest, call: Call) -> jobs_pb2.ListJobsResponse:
        size = min(request.page_size or _PAGE, _MAX_PAGE)
        wanted = read_filter(request, None if call.identity in self._config.admins else call.identity)
        found = await self._jobs.select(wanted, size + 1)
        jobs = found.jobs
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
        elif found.stopped_at is not None:
            answer.next_page_token = str(found.stopped_at)
        if others := [job.id for job in answer.jobs if job.identity != call.identity]:
            self._audit.permit_list(call, _METHOD + "ListJobs", others)
        return answer

    async def _cancel(self, request: jobs_pb2.CancelJobRequest, call: Call) -> jobs_pb2.Job:
        REASON.check(request.reason)
        job = await self._own(request.id, call, "CancelJob", self._jobs.get)
        reason = request.reason or f"cancelled by {call.identity}"
        self._audit.permit_access(call, _METHOD + "CancelJob", job, reason)
        _logger.info("job cancel %s", fields(job=job.id, identity=call.identity, reason=reason))
        return self._message(await self._jobs.cancel(job, reason[:500], kill=request.kill))

    async def _watch(
        self, request: jobs_pb2.WatchJobRequest, call: Call
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse | bytes]:
        job = await self._own(request.id, call, "WatchJob", self._jobs.look_up)
        self._audit.permit_access(call, _METHOD + "WatchJob", job)
        offsets = [
            offset if offset >= 0 else None for offset in (request.stdout_offset, request.stderr_offset)
        ]

        @asynccontextmanager
        async def room() -> AsyncIterator[int]:
            async with call.room() as most:
                yield most - MOST_BESIDE_DATA

        async with aclosing(self._jobs.watch(job, offsets[0], offsets[1], room)) as events:
            async for event in events:
                if not self._may_see(job, call):  # it may have changed during a long watch
                    raise _not_found(request.id)
                yield self._event(event)

    def _event(self, event: JobRecord | Piece) -> jobs_pb2.WatchJobResponse | bytes:
        if isinstance(event, JobRecord):
            return jobs_pb2.WatchJobResponse(job=self._message(event))
        return chunk_bytes(event)

    async def _permit(
        self, content: JobContent, request: jobs_pb2.CreateJobRequest, call: Call
    ) -> tuple[Decision, JobPermission]:
        """Permit a job, and have that in the audit log, by the policy that is in force when this returns.

        To decide and to write takes time, in which the policy may be replaced: then it is decided anew.

        Raises:
            RefusedError: it is not permitted, or its caller may call no longer.
        """
        self._policy.count_request(call.identity)
        asked = CommandRequest.of_job(content, has_input=bool(request.spec.standard_input))
        permitted: Decision | None = None
        while True:
            if self._draining.done():
                raise RefusedError(StatusCode.UNAVAILABLE, "the server is shutting down")
            policy = self._policy.policy
            decision = await self._policy.decide(call.identity, asked)
            self._check(content, request.hash, decision)
            if decision != permitted:
                await self._audit.permit(
                    call, _METHOD + "CreateJob", content, rule=decision.rule, request_id=request.request_id
                )
                permitted = decision
            self._verification.confirm(call)
            if policy is self._policy.policy:
                fault = partial(self._fault, call)
                return decision, self._policy.permission(policy, decision, fault)

    def _check(self, content: JobContent, hash: str, decision: Decision) -> None:  # noqa: A002
        if not decision.allowed:
            raise RefusedError(StatusCode.PERMISSION_DENIED, decision.message, rule=decision.rule)
        checked = content.shell_command if content.shell_command is not None else "\0".join(content.argv)
        if hash and hash != crc32hex(checked):
            raise RefusedError(StatusCode.INVALID_ARGUMENT, "hash mismatch: command integrity check failed")

    def _fault(self, call: Call) -> str:
        return CREDENTIALS_ENDED if self._verification.fault(call) else ""

    async def _own(
        self,
        job_id: str,
        call: Call,
        method: str,
        find: Callable[[str], Awaitable[JobRecord | None]],
    ) -> JobRecord:
        ID.check(job_id)
        job = await find(job_id)
        if job is None or not self._may_see(job, call):
            reason = "there is no such job" if job is None else f"the job is of {job.identity}"
            self._audit.refuse(call, _METHOD + method, None, code="NOT_FOUND", reason=reason, job=job_id)
            raise _not_found(job_id)
        return job

    def _may_see(self, job: JobRecord, call: Call) -> bool:
        return job.identity == call.identity or call.identity in self._config.admins

    def _message(self, job: JobRecord) -> jobs_pb2.Job:
        return job_message(job, self._config.limits.retention_seconds, self._spec_message(job.content))

    def _spec_message(self, content: JobContent) -> jobs_pb2.JobSpec:
        # A job is told several times while it runs, each time with the same content: it is encoded once.
        if content.text_bytes > _LARGEST_KNOWN:
            return spec_message(content)
        known = self._specs.get(id(content))
        if known is None or known[0] is not content:
            if len(self._specs) >= _SPECS:
                self._specs.clear()
            known = self._specs[id(content)] = content, spec_message(content)
        return known[1]


def _not_found(name: str) -> RefusedError:
    return RefusedError(StatusCode.NOT_FOUND, f"there is no job {name[:128]!r}")
