"""Takes a version-1 command from its request to its answer.

A command starts only after all of this, in this order: the server is not shutting down, the caller has not
asked for too many, the command is valid, the policy permits it, its hash matches, the caller may run one
more, and the permission is in the audit log. The policy and the caller's credentials can change while one of
these waits. So they are asked again in the very step that starts the command, in which nothing else runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from remsvc.command import Command, crc32hex
from remsvc.errors import ExecutionError
from remsvc.execution.shell import check_length
from remsvc.server.audit.audit import Audit
from remsvc.server.calls.call import Call
from remsvc.server.calls.statuses import status_of
from remsvc.server.calls.verification import CallVerification
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
    """A command that a caller has asked for, and how far it has come.

    The message it came in is not kept: the command's text would be in memory twice.

    Attributes:
        tid, hash: as they came with the request; the answer repeats them.
        command: what is to run.
        job_id: the id under which it is listed while it runs, and in the audit log.
        about: describes it in log lines.
        counted: whether it was counted against its identity's rate.
        permitted: the decision that permits it, once that is in the audit log.
        started: the command as it was given to the engine, once it was permitted.
    """

    tid: int
    hash: str
    command: Command
    job_id: str
    about: str
    counted: bool = field(default=False, init=False)
    permitted: Decision | None = field(default=None, init=False)
    started: RunnableCommand | None = field(default=None, init=False)

    def note_counted(self) -> None:
        """It was counted against its identity's rate."""
        self.counted = True

    def note_permitted(self, decision: Decision) -> None:
        """This decision permits it, and is in the audit log."""
        self.permitted = decision

    def note_started(self, started: RunnableCommand) -> None:
        """It was given to the engine."""
        self.started = started

    @property
    def has_begun(self) -> bool:
        """Whether it was given to the engine and not taken back. It may still wait for the one before it."""
        return self.started is not None and not self.started.withdrawn


class CommandLifecycle:
    """Checks the commands of all calls, starts them, and makes their answers.

    Args:
        runner: runs them.
        verification: asked again whenever a command starts, whether its caller still may call.
        policy: decides what may run.
        audit: every decision is written there before it has an effect.
        draining: done when the server is shutting down: what runs may finish, and nothing else starts.

    Attributes:
        draining: as given.
        on_draining: functions that are called when the server begins to shut down.
    """

    def __init__(
        self,
        runner: CommandRunner,
        verification: CallVerification,
        policy: PolicyInForce,
        audit: Audit,
        draining: asyncio.Future[None],
    ) -> None:
        self.draining = draining
        # Not the future's own: to take one of many back, it would look through all of them.
        self.on_draining: set[Callable[[], None]] = set()
        draining.add_done_callback(self._tell_draining)
        self._runner = runner
        self._verification = verification
        self._policy = policy
        self._audit = audit

    @property
    def may_look_ahead(self) -> bool:
        """Whether the engine can start a command by itself the moment the one before it has ended."""
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
        """The place that the commands of a call take, one after the other, among those of its identity."""
        return self._policy.place(call.identity)

    async def begin(
        self, requested: RequestedCommand, call: Call, method: str, place: Place, *, patiently: bool = False
    ) -> None:
        """Check a command and start it.

        Args:
            requested: the command.
            call: the call it came with.
            method: the full name of the method, for the audit log.
            place: of the call; taken where the call does not have it yet.
            patiently: whether to wait where no place is free. A call of which something has run waits: its
                caller could not simply repeat it.

        Raises:
            RefusedError: it does not start, and this is logged. So does every other error of
                :mod:`~remsvc.server.calls.statuses`.
        """
        try:
            started = await self._permit(requested, call, method, place, patiently=patiently)
        except Exception as error:
            if (refused := status_of(error)) is not None:
                self._note_refusal(requested, call, method, refused)
            raise
        requested.note_started(started)

    async def begin_ahead(
        self, requested: RequestedCommand, call: Call, method: str, before: RequestedCommand
    ) -> None:
        """Check a command while ``before`` runs, and have the engine start it when that has ended.

        Where it would be refused, nothing happens: it is checked again, and then refused, once ``before``
        was answered. So callers see commands refused in the order in which they sent them.
        """
        assert before.started is not None
        if not self._outlasts(call, before.started):
            return
        try:
            started = await self._permit(requested, call, method, before=before.started)
        except Exception as error:
            if status_of(error) is None:
                raise
        else:
            requested.note_started(started)

    async def finish(self, requested: RequestedCommand, call: Call) -> RemSvc_pb2.RemResMsg:
        """Wait until a command that was begun has ended; its answer. Cancelled, end its whole process tree.

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
        """End a command that was begun ahead and whose caller has gone before its turn."""
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
        """Decide on a command, write that into the audit log, and start it.

        Each step but the last can take a while. Where the policy has changed meanwhile, all is decided anew.
        """
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
                requested.note_permitted(decision)
        # From here to the start nothing is awaited: what is true now is true when the command starts.
        self._verification.confirm(call)
        if call.ended:
            # Its task may not have been cancelled yet; a command must not run for somebody who has gone.
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
        """Whether the caller's credentials are valid until ``before`` has ended at the latest.

        The engine starts the next command by itself then, and nobody looks at the credentials again.
        """
        limit = before.job.time_limit
        return limit is None or not call.verified.expired(time.time() + limit + _LEEWAY_SECONDS)

    async def _decide(self, requested: RequestedCommand, identity: str) -> Decision:
        if self.draining.done():
            raise RefusedError(StatusCode.UNAVAILABLE, "the server is shutting down")
        if not requested.counted:
            self._policy.count_request(identity)
            requested.note_counted()
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
