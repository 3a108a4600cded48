"""One version-1 command of a call, from its request to its answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from remsvc.command import Command, crc32hex
from remsvc.errors import ExecutionError
from remsvc.execution.shell import check_length
from remsvc.server.audit.audit import Audit
from remsvc.server.calls.authentication import CallAuthentication
from remsvc.server.calls.call import Call
from remsvc.server.calls.statuses import status_of
from remsvc.server.commands.runner import CommandRunner, RunnableCommand
from remsvc.server.logs import fields
from remsvc.server.policy.decision import CommandRequest, Decision
from remsvc.server.policy.in_force import PolicyInForce
from remsvc.server.policy.places import Place
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode
from remsvc_proto import RemSvc_pb2

_logger = logging.getLogger("remsvc.command")

_LEEWAY_SECONDS = 10.0  # that a command may take to end beyond its time limit


@dataclass(eq=False)
class RequestedCommand:
    """A command that somebody asked for. The message itself is not kept: its text would be held twice.

    Attributes:
        tid, hash: as they came with the request.
        job_id: under which it is listed, and in the audit log.
        about: it, as log lines show it.
        counted: whether it has been counted against its identity's rate.
        permitted: the decision by which it may run, once that is in the audit log.
        started: it, once it was permitted and given to the engine.
    """

    tid: int
    hash: str
    command: Command
    job_id: str
    about: str
    counted: bool = False
    permitted: Decision | None = None
    started: RunnableCommand | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it was started, and not taken back."""
        return self.started is not None and not self.started.withdrawn


class CommandLifecycle:
    """Checks commands, starts them and answers.

    Args:
        authentication: asked again, whenever a command starts, whether its caller still may call.
        draining: done when the server is shutting down: what runs may finish, nothing else starts.

    Attributes:
        on_draining: called when it is.
    """

    def __init__(
        self,
        runner: CommandRunner,
        authentication: CallAuthentication,
        policy: PolicyInForce,
        audit: Audit,
        draining: asyncio.Future[None],
    ) -> None:
        self.draining = draining
        # Not the future's own: to take one of many back, it would look through all of them.
        self.on_draining: set[Callable[[], None]] = set()
        draining.add_done_callback(self._tell_draining)
        self._runner = runner
        self._authentication = authentication
        self._policy = policy
        self._audit = audit

    @property
    def may_look_ahead(self) -> bool:
        """Whether a command can wait, ready to start, for the one before it to end."""
        return self._runner.can_start_after

    def new(self, request: RemSvc_pb2.RemCmdMsg, call: Call) -> RequestedCommand:
        """What a request asks for, before anything of it was checked."""
        command = Command(request.cmd, request.cmdtyp, request.cmdusr, request.src)
        about = fields(
            tid=request.tid,
            identity=call.identity,
            peer=call.peer,
            user=request.cmdusr,
            src=request.src,
            cmd=self._audit.redact(request.cmd),
        )
        return RequestedCommand(request.tid, request.hsh, command, self._runner.new_id(), about)

    def place(self, call: Call) -> Place:
        """What counts as running what a call begins."""
        return self._policy.place(call.identity)

    async def begin(
        self, requested: RequestedCommand, call: Call, method: str, place: Place, *, patiently: bool = False
    ) -> None:
        """Start it, in the call's place.

        Args:
            patiently: to wait where there is no place: something of the call has run.

        Raises:
            RefusedError: it does not start, and this is logged. So does every other error of
                :mod:`~remsvc.server.calls.statuses`.
        """
        try:
            requested.started = await self._permit(requested, call, method, place, patiently=patiently)
        except Exception as error:
            if (refused := status_of(error)) is not None:
                self._note_refusal(requested, call, method, refused)
            raise

    async def begin_ahead(
        self, requested: RequestedCommand, call: Call, method: str, before: RequestedCommand
    ) -> None:
        """Let it start the moment that the command ``before``, which runs, has ended, in its place.

        What would be refused now is left alone: it is asked again when its turn has come.
        """
        assert before.started is not None
        if not self._outlasts(call, before.started):
            return
        try:
            requested.started = await self._permit(requested, call, method, before=before.started)
        except Exception as error:
            if status_of(error) is None:
                raise

    async def finish(self, requested: RequestedCommand, call: Call) -> RemSvc_pb2.RemResMsg:
        """Wait for its end; cancelled, end it with its whole process tree.

        Raises:
            ExecutionError: whether it ran is not known.
        """
        assert requested.started is not None
        began = time.monotonic()
        try:
            answer = await self._runner.answer(requested.started, call.identity, requested.job_id)
        except ExecutionError as error:
            _logger.error("command lost %s %s", fields(reason=str(error)), requested.about)
            raise
        except BaseException:
            _logger.warning("command ended because its caller went away %s", requested.about)
            raise
        duration = f"{time.monotonic() - began:.3f}s"
        _logger.info("command %s %s", fields(rc=answer.rc, duration=duration), requested.about)
        return RemSvc_pb2.RemResMsg(
            rc=answer.rc, tid=requested.tid, out=answer.out, err=answer.err, hsh=requested.hash
        )

    def abandon(self, requested: RequestedCommand, call: Call) -> None:
        """Its caller went away before its turn came: end it, should it have started."""
        if requested.started is not None:
            self._runner.abandon(requested.started, call.identity, requested.job_id)

    async def _permit(
        self,
        requested: RequestedCommand,
        call: Call,
        method: str,
        place: Place | None = None,
        before: RunnableCommand | None = None,
        *,
        patiently: bool = False,
    ) -> RunnableCommand:
        """Start it by the policy that is in force when it starts, once that is in the audit log."""
        policy = prepared = None
        while prepared is None or policy is not self._policy.policy or self.draining.done():
            policy = self._policy.policy
            decision = await self._decide(requested, call.identity)
            if place is not None:
                await place.take(patiently=patiently)
            if prepared is None or decision != requested.permitted:
                prepared = await self._runner.prepare(requested.command, decision.limits, call.identity)
            if decision != requested.permitted:
                await self._audit.permit(call, method, prepared.job, rule=decision.rule, job=requested.job_id)
                requested.permitted = decision
        # From here to the start there is no wait: what holds now holds when it starts.
        self._authentication.confirm(call)
        if call.ended:
            # Whatever became of the news that its caller has gone: nothing may run for nobody.
            raise RefusedError(StatusCode.CANCELLED, "the caller has gone")
        self._runner.start(prepared, before)
        return prepared

    def _note_refusal(
        self, requested: RequestedCommand, call: Call, method: str, refused: RefusedError
    ) -> None:
        reason = str(refused)
        noted = self._audit.refuse(
            call,
            method,
            self._runner.as_job(requested.command),
            code=refused.code.name,
            reason=reason,
            rule=refused.rule,
            job=requested.job_id,
        )
        if noted:
            _logger.warning("command refused %s %s", fields(reason=reason), requested.about)

    def _outlasts(self, call: Call, before: RunnableCommand) -> bool:
        """Whether what a caller showed is valid until the command ``before`` has ended for certain.

        What starts in its place starts without being asked about again.
        """
        limit = before.job.time_limit
        return limit is None or not call.verified.expired(time.time() + limit + _LEEWAY_SECONDS)

    async def _decide(self, requested: RequestedCommand, identity: str) -> Decision:
        if self.draining.done():
            raise RefusedError(StatusCode.UNAVAILABLE, "the server is shutting down")
        if not requested.counted:
            self._policy.count_request(identity)
            requested.counted = True
        command, expected = requested.command, requested.hash
        command.validate()
        check_length(command.cmd, command.cmdtyp)
        decision = await self._policy.decide(identity, CommandRequest.of_command(command))
        if not decision.allowed:
            raise RefusedError(StatusCode.PERMISSION_DENIED, decision.message, rule=decision.rule)
        if expected and expected != crc32hex(command.cmd):
            raise RefusedError(StatusCode.INVALID_ARGUMENT, "hash mismatch: command integrity check failed")
        return decision

    def _tell_draining(self, _: object) -> None:
        for tell in tuple(self.on_draining):
            tell()
