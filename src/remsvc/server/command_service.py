"""Wire version 1: the ``RS.RemSvc`` service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any, TypeVar

import grpc
import grpc.aio

from remsvc.command import Command, crc32hex
from remsvc.errors import ExecutionError, InvalidCommandError
from remsvc.execution.job import JobSpec
from remsvc.execution.shell import check_length
from remsvc.server.audit import Audit
from remsvc.server.audit_writer import AuditError
from remsvc.server.authentication import CallContext
from remsvc.server.command_runner import Answer, CommandRunner
from remsvc.server.decision import CommandRequest, Decision
from remsvc.server.logs import fields
from remsvc.server.policy_in_force import PolicyInForce
from remsvc.server.refusal import RefusedError, abort
from remsvc.server.requests import Malformed, parser, serialize
from remsvc_proto import RemSvc_pb2

_logger = logging.getLogger("remsvc.command")
_T = TypeVar("_T")

SERVICE_NAME = RemSvc_pb2.DESCRIPTOR.services_by_name["RemSvc"].full_name


class CommandService:
    """Checks commands, runs them and answers.

    Args:
        draining: done when the server is shutting down: what runs may finish, nothing else starts.
        stream_idle: seconds that a stream waits for its next command.
    """

    def __init__(
        self,
        runner: CommandRunner,
        policy: PolicyInForce,
        audit: Audit,
        draining: asyncio.Future[None],
        stream_idle: float,
    ) -> None:
        self._runner = runner
        self._policy = policy
        self._audit = audit
        self._draining = draining
        self._stream_idle = stream_idle
        self._started = time.monotonic()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given. Bytes that are no request are refused as such, not as a crash."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Ping": unary(self._ping, parser(RemSvc_pb2.PingMsg), serialize),
                "GetStatus": unary(self._get_status, parser(RemSvc_pb2.Empty), serialize),
                "RemCmd": unary(self._rem_cmd, parser(RemSvc_pb2.RemCmdMsg), serialize),
                "RemCmdStrm": stream(self._rem_cmd_strm, parser(RemSvc_pb2.RemCmdMsg), serialize),
            },
        )

    async def _ping(self, request: RemSvc_pb2.PingMsg, context: CallContext) -> RemSvc_pb2.PongMsg:
        _logger.info("ping %s", fields(identity=context.identity, peer=context.peer()))
        return RemSvc_pb2.PongMsg(seq=request.seq, time=request.time, data=request.data)

    async def _get_status(self, request: RemSvc_pb2.Empty, context: CallContext) -> RemSvc_pb2.StatusMsg:
        _logger.info("status %s", fields(identity=context.identity, peer=context.peer()))
        uptime = int(time.monotonic() - self._started)
        return RemSvc_pb2.StatusMsg(rc=0, msg=f"state=OK uptime={uptime}s commands={self._runner.started}")

    async def _rem_cmd(self, request: RemSvc_pb2.RemCmdMsg, context: CallContext) -> RemSvc_pb2.RemResMsg:
        try:
            return await self._answer(request, context, f"/{SERVICE_NAME}/RemCmd")
        except RefusedError as refused:
            await abort(refused, context)

    async def _rem_cmd_strm(self, requests: Any, context: CallContext) -> None:
        # The next command is read, and the last answer written, while this one runs.
        reading = asyncio.ensure_future(context.read())
        writing: asyncio.Future[None] | None = None
        try:
            while (request := await self._unless_draining(reading)) is not grpc.aio.EOF:
                if isinstance(request, Malformed):
                    raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, request.reason)
                reading = asyncio.ensure_future(context.read())
                answer = await self._answer(request, context, f"/{SERVICE_NAME}/RemCmdStrm")
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(context.write(answer))
            if writing is not None:
                await writing
        except RefusedError as refused:
            if writing is not None:
                await writing
            await abort(refused, context)
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.UsageError, grpc.aio.AioRpcError):
                await reading

    async def _unless_draining(self, reading: asyncio.Future[_T]) -> _T:
        if not reading.done():
            await asyncio.wait(
                (reading, self._draining), return_when=asyncio.FIRST_COMPLETED, timeout=self._stream_idle
            )
        if not reading.done() and not self._draining.done():
            raise RefusedError(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"no command came for {self._stream_idle:g} s"
            )
        if self._draining.done():
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        return reading.result()

    async def _answer(
        self, request: RemSvc_pb2.RemCmdMsg, context: CallContext, method: str
    ) -> RemSvc_pb2.RemResMsg:
        command = Command(request.cmd, request.cmdtyp, request.cmdusr, request.src)
        about = fields(
            tid=request.tid,
            identity=context.identity,
            peer=context.peer(),
            user=request.cmdusr,
            src=request.src,
            cmd=self._audit.redact(request.cmd),
        )
        spec, job_id = self._runner.as_job(command), self._runner.new_id()
        with contextlib.ExitStack() as running:
            try:
                decision = await self._check(command, request.hsh, context.identity)
                running.enter_context(self._policy.running_command(context.identity))
                await self._permit(context, method, spec, decision, job_id)
            except RefusedError as refused:
                reason = str(refused)
                _logger.warning("command refused %s %s", fields(reason=reason), about)
                self._audit.refuse(
                    *(context, method, spec),
                    code=refused.code.name,
                    reason=reason,
                    rule=refused.rule,
                    job=job_id,
                )
                raise
            started = time.monotonic()
            try:
                answer = await self._runner.run(command, context.identity, job_id, decision.limits)
            except asyncio.CancelledError:
                _logger.warning("command ended because its caller went away %s", about)
                raise
            except ExecutionError as error:
                _logger.error("command lost %s %s", fields(reason=str(error)), about)
                raise RefusedError(grpc.StatusCode.INTERNAL, str(error)) from error
        self._log_end(answer, time.monotonic() - started, about)
        return RemSvc_pb2.RemResMsg(
            rc=answer.rc, tid=request.tid, out=answer.out, err=answer.err, hsh=request.hsh
        )

    async def _check(self, command: Command, hsh: str, identity: str) -> Decision:
        if self._draining.done():
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        self._policy.count_request(identity)
        try:
            command.validate()
            check_length(command.cmd, command.cmdtyp)
        except InvalidCommandError as error:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        decision = await self._policy.decide(identity, CommandRequest.of_command(command))
        if not decision.allowed:
            raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, decision.message, rule=decision.rule)
        if hsh and hsh != crc32hex(command.cmd):
            raise RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, "hash mismatch: command integrity check failed"
            )
        return decision

    async def _permit(
        self, context: CallContext, method: str, spec: JobSpec, decision: Decision, job_id: str
    ) -> None:
        try:
            await self._audit.permit(context, method, spec, rule=decision.rule, job=job_id)
        except AuditError as error:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, str(error)) from error

    def _log_end(self, answer: Answer, duration: float, about: str) -> None:
        _logger.info("command %s %s", fields(rc=answer.rc, duration=f"{duration:.3f}s"), about)
