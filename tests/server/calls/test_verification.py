"""Calls whose caller is revoked while something holds them up that does not hear of it at once."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remsvc.execution.engine_choice import create_engine
from remsvc.execution.jobs.model import JobContent
from remsvc.execution.jobs.transient import PassingJobs
from remsvc.server.audit.audit import Audit
from remsvc.server.audit.config import AuditConfig
from remsvc.server.bounds.rate_limit import Rate
from remsvc.server.calls.admission import Admission
from remsvc.server.calls.call import Call
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Method, methods_of
from remsvc.server.calls.verification import CallVerification
from remsvc.server.commands.lifecycle import CommandLifecycle
from remsvc.server.commands.runner import CommandRunner
from remsvc.server.commands.service import CommandService
from remsvc.server.identity.authentication import Authenticator
from remsvc.server.identity.failed_authentication import FailedAuthentications
from remsvc.server.identity.tokens import Credential, TokenTable, digest_of
from remsvc.server.policy.in_force import PolicyInForce
from remsvc.server.policy.policy import Policy
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode
from remsvc_proto import RemSvc_pb2
from tests.server.calls.call_in_hand import CallInHand

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX commands")

DEADLINE = 60.0
KNOWN = Authenticator(TokenTable([Credential("etl", digest_of("te"))]))
NOBODY = Authenticator(TokenTable([]))


class DeafAudit(Audit):
    """An audit log that takes as long as the test likes, and does not hear that its caller is cancelled."""

    def __init__(self) -> None:
        super().__init__(AuditConfig())
        self.asked = asyncio.Event()
        self.written = asyncio.Event()

    async def permit(self, call: Call, method: str, spec: JobContent, **about: str) -> None:
        self.asked.set()
        while not self.written.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.written.wait()


@pytest.fixture
def authentication() -> CallVerification:
    return CallVerification(KNOWN, lambda *_: None, FailedAuthentications(Rate(1000, 1.0)))


@pytest.fixture
def calls(authentication: CallVerification) -> Calls:
    return Calls(authentication, Admission(LimitsConfig()), DEADLINE)


@pytest.fixture
async def audit() -> DeafAudit:
    return DeafAudit()


@pytest.fixture
async def commands(authentication: CallVerification, audit: DeafAudit) -> AsyncIterator[CommandService]:
    """Wire version 1, over a real engine."""
    engine = create_engine()
    await engine.open()
    draining: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    runner = CommandRunner(engine, PassingJobs(""), time_limit=DEADLINE, output_limit=1000)
    lifecycle = CommandLifecycle(
        runner, authentication, PolicyInForce(Policy(), authentication.knows), audit, draining
    )
    yield CommandService(runner, lifecycle, DEADLINE, "http2")
    await engine.close()


def method_of(service: CommandService, name: str) -> Method:
    return methods_of(service.methods())[name.encode()]


@pytest.mark.parametrize("name", ["/RS.RemSvc/RemCmd", "/RS.RemSvc/RemCmdStrm"])
async def test_no_command_starts_for_a_revoked_caller_whatever_became_of_his_cancellation(
    calls: Calls,
    authentication: CallVerification,
    commands: CommandService,
    audit: DeafAudit,
    tmp_path: Path,
    name: str,
) -> None:
    """Decided on, and waiting for the audit log, while the token is revoked."""
    call = CallInHand(name, RemSvc_pb2.RemCmdMsg(cmd=f"touch {tmp_path}/ran"))
    answering = asyncio.ensure_future(calls.answer(call, method_of(commands, name)))
    await asyncio.wait_for(audit.asked.wait(), DEADLINE)
    authentication.use(NOBODY)
    await asyncio.sleep(0)
    audit.written.set()
    with pytest.raises(RefusedError, match="revoked or have expired") as refused:
        await asyncio.wait_for(answering, DEADLINE)
    assert refused.value.code is StatusCode.UNAUTHENTICATED
    assert not call.answers
    assert not (tmp_path / "ran").exists()


async def test_a_revoked_call_is_cancelled_until_it_has_ended(
    calls: Calls, authentication: CallVerification
) -> None:
    begun = asyncio.Event()
    heard = 0

    async def serve(_: object, __: Call) -> None:
        nonlocal heard
        begun.set()
        while heard < 3:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                heard += 1
        raise asyncio.CancelledError

    method = Method("/test/Deaf", RemSvc_pb2.Empty, 0, stream=serve)
    answering = asyncio.ensure_future(calls.answer(CallInHand(method.name), method))
    await asyncio.wait_for(begun.wait(), DEADLINE)
    authentication.use(NOBODY)
    for _ in range(5):
        await asyncio.sleep(0)
        authentication.end_expired()
    with pytest.raises(RefusedError, match="revoked or have expired"):
        await asyncio.wait_for(answering, DEADLINE)
    assert heard == 3
    authentication.end_expired()  # it is gone: nobody is cancelled any more


async def test_who_is_known_by_another_name_is_somebody_else(
    calls: Calls, authentication: CallVerification
) -> None:
    """A token that is given to another identity ends the calls that were made with it."""
    begun = asyncio.Event()

    async def serve(_: object, __: Call) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    method = Method("/test/Waits", RemSvc_pb2.Empty, 0, stream=serve)
    answering = asyncio.ensure_future(calls.answer(CallInHand(method.name), method))
    await asyncio.wait_for(begun.wait(), DEADLINE)
    authentication.use(Authenticator(TokenTable([Credential("web", digest_of("te"))])))
    with pytest.raises(RefusedError, match="revoked or have expired"):
        await asyncio.wait_for(answering, DEADLINE)
