"""The server that soaked sessions meet: all of the HTTP/2 transport, under services that answer at random."""

from __future__ import annotations

import asyncio
from typing import Any

from remsvc.server.bounds.rate_limit import Rate
from remsvc.server.calls.admission import Admission
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.guard import Calls
from remsvc.server.calls.verification import CallVerification
from remsvc.server.http2.connections import Connections
from remsvc.server.http2.listener import Http2Listener
from remsvc.server.identity.authentication import Authenticator
from remsvc.server.identity.failed_authentication import FailedAuthentications
from remsvc.server.identity.tokens import Credential, TokenTable, digest_of
from tests.soak.answers import Answers
from tests.soak.sessions import TOKENS, Session, Step
from tests.soak.tls_peer import server_tls

LIMITS = {
    "usual": LimitsConfig(),
    "tight": LimitsConfig(
        max_connections=2,
        max_streams=3,
        max_calls=4,
        max_metadata_bytes=1024,
        max_headers=16,
        max_message_bytes=100_000,
        max_unread_bytes=64 * 1024,
        max_unsent_bytes=64 * 1024,
        max_unsent_bytes_total=64 * 1024,
        handshake_timeout=1.0,
        header_timeout=0.5,
        request_timeout=1.0,
        connection_idle=5.0,
        stream_idle=2.0,
        answer_timeout=1.0,
        failed_authentications=Rate(1, 60.0),
    ),
}
_KNOWN = Authenticator(TokenTable([Credential(token[:14], digest_of(token)) for token in TOKENS]))
_NOBODY = Authenticator(TokenTable([]))


class SoakedServer:
    """One with the limits of this name.

    Attributes:
        answers: what it answers.
        connections: to it.
        admission: of calls.
        limits: its own.
        stopping: whether it was told to stop.
    """

    def __init__(self, limits: str) -> None:
        loop = asyncio.get_running_loop()
        self.limits = LIMITS[limits]
        self._draining: asyncio.Future[None] = loop.create_future()
        self.answers = Answers(self._draining)
        failures = FailedAuthentications(self.limits.failed_authentications, loop.time)
        self._verification = CallVerification(_KNOWN, lambda *_: None, failures)
        self.admission = Admission(self.limits)
        calls = Calls(self._verification, self.admission, self.limits.request_timeout)
        self.connections = Connections(self.limits, calls, self.answers.methods)
        self._watching = loop.create_task(self.connections.watch_over())
        timeout = self.limits.handshake_timeout
        self._listeners = {
            False: Http2Listener(self.connections, lambda: None, timeout),
            True: Http2Listener(self.connections, server_tls, timeout),
        }
        self._ports: dict[bool, int] = {}
        self._stopping: list[asyncio.Task[None]] = []

    async def listen(self) -> None:
        """Accept connections."""
        for encrypted, listener in self._listeners.items():
            address = await listener.listen("127.0.0.1", 0)
            self._ports[encrypted] = int(address.rpartition(":")[2])
        await asyncio.sleep(0)  # until they do accept

    def port(self, *, encrypted: bool) -> int:
        """Where it accepts connections."""
        return self._ports[encrypted]

    @property
    def own_tasks(self) -> set[asyncio.Task[Any]]:
        """Those that are there between sessions too."""
        return {self._watching}.union(*(listener.accepting for listener in self._listeners.values()))

    @property
    def stopping(self) -> bool:
        return bool(self._stopping)

    def begin(self, session: Session) -> None:
        """Be as new for a session."""
        self.answers.begin(session.answers)
        self._verification.use(_KNOWN)

    def revoke(self) -> None:
        """Let no caller be known any more."""
        self._verification.use(_NOBODY)

    def stop(self, step: Step) -> None:
        """Begin to stop as a step says."""
        if not self._draining.done():
            self._draining.set_result(None)
        self._stopping.append(asyncio.get_running_loop().create_task(self._stop(step)))

    async def _stop(self, step: Step) -> None:
        for listener in self._listeners.values():
            await listener.close()
        if step.act == "drain":
            await self.connections.drain(step.amount)
        else:
            await self.connections.end(step.amount)

    async def end(self) -> None:
        """End what there is between sessions."""
        for listener in self._listeners.values():
            await listener.close()
        self._watching.cancel()
        await asyncio.wait([self._watching])
