"""Looks after all connections: ends those that keep the server waiting, and some where there are too many."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import NoReturn

from remsvc.server.bounds.floods import CountedWarnings
from remsvc.server.bounds.shares import Shares
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Methods
from remsvc.server.http2.answering import Answering
from remsvc.server.http2.connection import ServerConnection
from remsvc.server.http2.shared import Shared
from remsvc.server.http2.unread import Unread
from remsvc.server.http2.unsent import Unsent
from remsvc.server.logs import fields
from remsvc.server.refusal import exhausted
from remsvc.time_limit import TimeLimit

_logger = logging.getLogger("remsvc.server")

_CHECK_SECONDS = 1.0
_LOOK_SECONDS = 0.02
# Idle connections are closed from this share of max_connections on, down to the second one.
_FULL, _ROOM = 0.9, 0.75
_RETRY_SECONDS = 1.0


class Connections:
    """The connections of a server.

    Args:
        limits: on each of them and on all.
        calls: answers what comes over them.
        methods: that can be called.

    Attributes:
        shared: what they share.
    """

    def __init__(self, limits: LimitsConfig, calls: Calls, methods: Methods) -> None:
        self._limits = limits
        self._open: set[ServerConnection] = set()
        self._answering = Answering(calls)
        self.shared = Shared(
            limits,
            methods,
            self._answering,
            Unread(limits.max_unread_bytes),
            Unsent(self._open, limits.max_unsent_bytes, limits.max_unsent_bytes_total),
        )
        self._of_callers = Shares(limits.max_connections)  # those with a verified caller, by his identity
        self._all_closed = asyncio.Event()
        self._cut = CountedWarnings("connections cut or refused")

    @property
    def of_callers(self) -> int:
        """How many have a verified caller."""
        return self._of_callers.total

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    # Coming and going

    def new(self, peer: str, network: str, find_owner: Callable[[], int | None]) -> ServerConnection | None:
        """A connection that has come; None where there is no room for it.

        Args:
            peer, network: see :class:`~remsvc.server.http2.connection.ServerConnection`.
            find_owner: finds the user of this host who has connected. It is called at once, before its peer
                can have closed the connection, and only where there is room: it asks the system.
        """
        most = self._limits.max_connections
        if len(self._open) >= max(_FULL * most, 1):
            self._make_room(len(self._open) - int(_ROOM * most))
        if len(self._open) >= most:
            self._cut.note("refused while there were too many", network)
            return None
        connection = ServerConnection(self.shared, self, peer, network, find_owner())
        self._open.add(connection)
        return connection

    def note_identity(self, connection: ServerConnection, identity: str) -> None:
        """A connection has a verified caller.

        Raises:
            RefusedError: there would be no room for others.
        """
        if connection not in self._open:
            return  # cut a moment ago, and not counted any more
        if not self._of_callers.has_room(identity):
            own = self._of_callers.of(identity)
            raise exhausted(f"{identity} has {own} connections already", _RETRY_SECONDS)
        self._of_callers.add(identity)

    def discard(self, connection: ServerConnection) -> None:
        """It has ended."""
        if connection in self._open and (identity := connection.identity):
            self._of_callers.remove(identity)
        self._open.discard(connection)
        if not self._open:
            self._all_closed.set()

    def _make_room(self, count: int) -> None:
        """Close idle connections: first those that never had a call, of the network that has most."""
        crowd = Counter(connection.network for connection in self._open)
        idle = [connection for connection in self._open if not connection.busy]
        newest = max((connection.opened for connection in idle), default=0.0)
        idle.sort(
            key=lambda connection: (
                bool(connection.identity),
                connection.opened == newest,  # it may be about to begin its first call
                -crowd[connection.network],
            )
        )
        for connection in idle[:count]:
            connection.cut("idle while there were too many")

    def note_cut(self, connection: ServerConnection, reason: str) -> None:
        """A connection is being cut, for this reason."""
        self._cut.note(reason, connection.network)

    # Looking after them

    async def watch_over(self) -> NoReturn:
        """Work until cancelled: end what keeps the server waiting."""
        limits = self._limits
        shortest = min(limits.handshake_timeout, limits.header_timeout, limits.connection_idle)
        interval = min(_CHECK_SECONDS, max(shortest / 4, 0.02))
        while True:
            await asyncio.sleep(interval)
            now = asyncio.get_running_loop().time()
            for number, connection in enumerate(list(self._open)):
                self._of_one(connection, connection.check, now)
                if number % 500 == 499:
                    await asyncio.sleep(0)

    def _of_one(self, connection: ServerConnection, do: Callable[..., None], *arguments: float) -> None:
        """Whatever is wrong with one of them, the others are looked after."""
        try:
            do(*arguments)
        except Exception:
            _logger.exception("a connection has failed %s", fields(peer=connection.peer))
            connection.cut("the connection has failed")

    async def drain(self, grace: float) -> None:
        """Take no more calls, let those that run finish for ``grace`` seconds, and then end them."""
        for connection in list(self._open):
            self._of_one(connection, connection.shut_down)
        try:
            with TimeLimit(grace):
                await self._wait_served()
        except TimeoutError:
            self._answering.cancel()

    async def _wait_served(self) -> None:
        """Wait until no caller is owed anything. Strangers are waited for by nobody."""
        while any(connection.owes for connection in self._open):  # noqa: ASYNC110  changes with each packet
            await asyncio.sleep(_LOOK_SECONDS)

    async def _wait_closed(self) -> None:
        if self._open:
            self._all_closed.clear()
            await self._all_closed.wait()

    async def end(self, seconds: float) -> None:
        """End all calls and close all connections, within ``seconds`` as far as the peers allow."""
        await self._answering.end(seconds)
        for connection in list(self._open):
            self._of_one(connection, connection.close)
        try:
            with TimeLimit(seconds):
                await self._wait_closed()
        except TimeoutError:
            for connection in list(self._open):
                connection.cut("")
            await asyncio.sleep(0)
        self._cut.say()
