"""Decides who makes a call, and ends calls whose callers' credentials were revoked or have expired."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from remsvc.server.calls.call import Call
from remsvc.server.identity.authentication import AuthenticationError, Authenticator
from remsvc.server.identity.failed_authentication import FailedAuthentications
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.status import StatusCode

CREDENTIALS_ENDED = "the credentials of this call have been revoked or have expired"


class CallVerification:
    """Verifies the callers of all calls, when a call begins and as long as it lasts.

    Args:
        authenticator: decides who calls, until :meth:`use` gives another one.
        on_refusal: called with the method, the peer and the reason, for calls that are refused and
            for calls that are ended.
        failures: how many from one address are answered and told to ``on_refusal`` one by one.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        on_refusal: Callable[[str, str, str], None],
        failures: FailedAuthentications,
    ) -> None:
        self._authenticator = authenticator
        self._failures = failures
        self._on_refusal = on_refusal
        self._open: dict[Call, OpenCall] = {}

    def use(self, authenticator: Authenticator) -> None:
        """From now on, ``authenticator`` decides. Calls whose callers it does not know the same
        way are ended with ``UNAUTHENTICATED``; all others go on."""
        self._authenticator = authenticator
        for open_call in tuple(self._open.values()):
            if reason := self.fault(open_call.call):
                self._end(open_call, reason)

    def end_expired(self) -> None:
        """End the calls whose callers' credentials have expired.

        A call that was ended before and is still there is told again: something has not heard it.
        """
        now = time.time()
        for open_call in tuple(self._open.values()):
            caller = open_call.call.caller
            if open_call.ended:
                open_call.task.cancel()
            elif caller is not None and caller.expired(now):
                self._end(open_call, f"what {caller.identity} showed has expired")

    def verify(self, call: Call) -> None:
        """Verify who makes a call, and have the call note it.

        Raises:
            RefusedError: it is nobody who may call.
        """
        try:
            caller = self._authenticator.authenticate(call.evidence)
        except AuthenticationError as error:
            if wait := self._failures.note(call.peer):
                raise exhausted("too many failed authentications from this address", wait) from None
            self._on_refusal(call.method, call.peer, error.reason)
            raise RefusedError(StatusCode.UNAUTHENTICATED, str(error)) from None
        call.note_caller(caller)

    def fault(self, call: Call) -> str:
        """Why the verified caller of a call may call no longer, for the log; empty where he may."""
        caller = call.verified
        if caller.verified_by is self._authenticator and not caller.expired(time.time()):
            return ""
        try:
            caller_now = self._authenticator.authenticate(call.evidence)
        except AuthenticationError as error:
            return error.reason
        if caller_now.identity != caller.identity:
            return f"no longer of {caller.identity}"
        call.note_caller(caller_now)  # it may expire at another time
        return ""

    def confirm(self, call: Call) -> None:
        """Ask again whether a verified caller may call: in the step that does what he asks for.

        Raises:
            RefusedError: he may not any more.
        """
        if reason := self.fault(call):
            open_call = self._open.get(call)
            if open_call is None or not open_call.ended:
                self._on_refusal(call.method, call.peer, reason)
            if open_call is not None:
                open_call.note_ended()
            raise RefusedError(StatusCode.UNAUTHENTICATED, CREDENTIALS_ENDED)

    def knows(self, identity: str) -> bool:
        """Whether there still is this identity: somebody could be verified to be it now."""
        return self._authenticator.knows(identity)

    def opened(self, call: Call) -> OpenCall:
        """A block in which the call of a verified caller is ended when his credentials do."""
        return OpenCall(self._open, call)

    def _end(self, open_call: OpenCall, reason: str) -> None:
        if not open_call.ended:
            open_call.note_ended()
            self._on_refusal(open_call.call.method, open_call.call.peer, reason)
            open_call.task.cancel()


class OpenCall:
    """A call that is open, from the beginning of a block to its end; see :meth:`CallVerification.opened`.

    Attributes:
        task: answers it.
        ended: whether its caller may call no longer.
    """

    __slots__ = ("_all", "call", "ended", "task")

    def __init__(self, all_open: dict[Call, OpenCall], call: Call) -> None:
        self._all = all_open
        self.call = call
        self.ended = False
        self.task: asyncio.Task[Any]

    def note_ended(self) -> None:
        """Its caller may call no longer."""
        self.ended = True

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._all[self.call] = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._all[self.call]
        if self.ended and kind is asyncio.CancelledError and not self.call.ended:
            raise RefusedError(StatusCode.UNAUTHENTICATED, CREDENTIALS_ENDED) from None
