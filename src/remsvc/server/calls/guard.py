"""The way of every call through the server, whatever its transport and its service.

Its caller is verified, the call admitted, its request read, its method asked, and its answer written.
Whatever goes wrong on the way becomes the call's status here.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from remsvc.server.calls.admission import Admission
from remsvc.server.calls.call import Call
from remsvc.server.calls.methods import Method, serialize
from remsvc.server.calls.request_memory import CallRequests
from remsvc.server.calls.statuses import refusal_of
from remsvc.server.calls.verification import CallVerification
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode
from remsvc.time_limit import TimeLimit


class Calls:
    """Answers the calls of all transports.

    Args:
        request_timeout: seconds from a call's beginning to the end of the one request that it has.
    """

    def __init__(self, verification: CallVerification, admission: Admission, request_timeout: float) -> None:
        self._verification = verification
        self._admission = admission
        self._request_timeout = request_timeout

    async def answer(self, call: Call, method: Method) -> None:
        """Answer a call. Where this returns, it has succeeded.

        Raises:
            RefusedError: its status, whatever error has ended it.
            asyncio.CancelledError: whoever runs this has cancelled it.
        """
        try:
            if not method.open_to_all:
                # Before anything of it is read: a stranger's request is of no interest.
                self._verification.verify(call)
            self._admission.check(call)
            data = call.take() if method.one is not None else None
            if data is not None and method.open_to_all:
                # Answered at once: whatever strangers are waiting for, a health check needs no place.
                await self._answer_one(call, method, data)
            else:
                await self._answer_admitted(call, method, data)
        except RefusedError:
            raise
        except Exception as error:
            raise refusal_of(error, call) from error

    async def _answer_admitted(self, call: Call, method: Method, data: bytes | None) -> None:
        admitted = self._admission.enter(call, lasting=method.one is None)
        try:
            if method.open_to_all:
                await self._respond(call, method, data)
            else:
                with self._verification.opened(call):
                    await self._respond(call, method, data)
        finally:
            self._admission.leave(admitted)

    async def _respond(self, call: Call, method: Method, data: bytes | None) -> None:
        """Answer an admitted call; ``data``: its one request, where that is here."""
        if method.one is None:
            await call.begin()
        if method.stream is not None:
            await self._converse(call, method)
            return
        if data is None:
            data = await self._only(call)
            if not method.open_to_all:
                self._verification.confirm(call)  # whom it lets in may have changed meanwhile
        if method.one is not None:
            await self._answer_one(call, method, data)
            return
        assert method.many is not None
        async with aclosing(method.many(method.parse(data), call)) as responses:  # type: ignore[type-var]
            async for response in responses:
                await call.write(serialize(response))

    async def _answer_one(self, call: Call, method: Method, data: bytes) -> None:
        assert method.one is not None
        with self._admission.holding_one(call, len(data)):
            answer = serialize(await method.one(method.parse(data), call))
        await call.write(answer)

    async def _converse(self, call: Call, method: Method) -> None:
        assert method.stream is not None
        held = self._admission.holding(call)
        with held:
            await method.stream(_Requests(call, method, held), call)

    async def _only(self, call: Call) -> bytes:
        """The one request of a call."""
        limit = self._request_timeout
        try:
            with TimeLimit(limit):
                request = await call.read()
        except TimeoutError:
            raise RefusedError(
                StatusCode.DEADLINE_EXCEEDED, f"the request did not arrive within {limit:g} s"
            ) from None
        if request is None:
            raise RefusedError(StatusCode.INVALID_ARGUMENT, "expected one request, got none")
        return request


class _Requests:
    """See :class:`~remsvc.server.calls.methods.Requests`."""

    def __init__(self, call: Call, method: Method, held: CallRequests) -> None:
        self._call = call
        self._method = method
        self._held = held
        self.answered = held.answered

    async def read(self) -> Any:
        await self._held.before_read()
        data = await self._call.read()
        if data is None:
            return None
        await self._held.add_after(len(data))
        return self._method.parse(data)
