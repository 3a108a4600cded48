"""Listening: accepts connections on the server's address, and encrypts them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial

from remsvc.errors import ServeError
from remsvc.server.bounds.floods import CountedWarnings
from remsvc.server.http2.connection import ServerConnection
from remsvc.server.http2.connections import Connections
from remsvc.server.http2.tls_transport import TlsTransport, TlsTurns
from remsvc.server.http2.vanished_peers import log_vanished_peers_quietly, peer_has_vanished
from remsvc.server.identity.peer_owner import peer_owner
from remsvc.server.listen_fault import listen_fault
from remsvc.server.peers import PeerAddress, network_of, peer_name
from remsvc.server.tls.config import TlsConfig
from remsvc.time_limit import TimeLimit

_logger = logging.getLogger("remsvc.server")

_BACKLOG = 1024
_TRIES_FOR_ONE_PORT = 20
# Connections may come as fast as they are accepted; after so many, everything else has its turn.
_ACCEPTED_AT_ONCE = 32
# After the system had no descriptor or memory left for one more.
_PAUSE_SECONDS = 0.1
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  only where it is asked for


class Http2Listener:
    """Accepts connections until it is closed.

    Args:
        connections: which they become.
        tls: what the next connection is encrypted with; None for plaintext.
        handshake_timeout: seconds for it.
        asks_owner: whether it matters which user of this host connects.

    Attributes:
        accepting: the tasks that accept connections, which end with an error or by :meth:`close`.
    """

    def __init__(
        self,
        connections: Connections,
        tls: Callable[[], TlsConfig | None],
        handshake_timeout: float,
        *,
        asks_owner: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections = connections
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._asks_owner = asks_owner
        self._tls_turns = TlsTurns(connections.shared.turns)
        self._not_accepted = CountedWarnings("connections could not be accepted")
        self._sockets: list[socket.socket] = []
        self.accepting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> str:
        """Accept connections; the address, ``HOST:PORT``. Raises :class:`ServeError`."""
        shown = f"[{host}]" if ":" in host else host
        if sys.platform == "win32":
            log_vanished_peers_quietly(self._loop)
        try:
            self._sockets = await self._bind(host, port)
        except OSError as error:
            raise ServeError(listen_fault(host, port, error)) from error
        self.accepting = [self._spawn(self._accept(listening)) for listening in self._sockets]
        return f"{shown}:{self._sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Accept no more, and give up what is not connected yet. Connections stay."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        self._not_accepted.say()
        for listening in self._sockets:
            listening.close()

    async def _bind(self, host: str, port: int) -> list[socket.socket]:
        if host in _WILDCARDS and socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):  # a system that knows IPv6 and has it switched off
                return [_listening(socket.AF_INET6, ("::", port), both=True)]
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address[0]) for family, _, _, _, address in found))
        for attempt in range(_TRIES_FOR_ONE_PORT):
            sockets: list[socket.socket] = []
            try:
                for family, address in addresses:
                    # All of a name's addresses on one port, also where any free one will do.
                    wanted = port or (sockets[0].getsockname()[1] if sockets else 0)
                    sockets.append(_listening(family, (str(address), wanted)))
            except OSError as error:
                for each in sockets:
                    each.close()
                if error.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
                    addresses.pop(len(sockets))  # such as ::1, where there is no IPv6
                elif port or error.errno != errno.EADDRINUSE or attempt == _TRIES_FOR_ONE_PORT - 1:
                    raise
            else:
                return sockets
        raise AssertionError

    async def _accept(self, listening: socket.socket) -> None:
        count = 0
        while True:
            count += 1
            if count % _ACCEPTED_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                accepted, address = await self._loop.sock_accept(listening)
            except OSError as error:
                # Never a reason to stop; and one who has gone already holds up nobody else.
                if peer_has_vanished(error):
                    _logger.debug("a peer has gone: %s", error)
                    continue
                self._not_accepted.note(error.strerror or str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            try:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:  # Windows and macOS tell of one who has gone here
                accepted.close()
                _logger.debug("a peer has gone: %s", error)
                continue
            try:
                self._take(accepted, address)
            except Exception:
                accepted.close()
                _logger.exception("a connection could not be taken")

    def _take(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        network = network_of(PeerAddress.of(address[0], address[1]).address)
        find_owner = partial(peer_owner, accepted) if self._asks_owner else _nobody
        connection = self._connections.new(peer_name(address), network, find_owner)
        if connection is None:
            accepted.close()
            return
        connecting = self._spawn(self._connect(connection, accepted))
        connection.note_connecting(connecting)
        # Not within the task: one that is cancelled before its first step never gets there.
        connecting.add_done_callback(lambda _: self._after_connecting(connection, accepted))

    async def _connect(self, connection: ServerConnection, accepted: socket.socket) -> None:
        """Make a connection of a socket; with TLS that takes its peer's part in the handshake."""
        tls = self._tls()
        protocol: ServerConnection | TlsTransport = connection
        if tls is not None:
            protocol = TlsTransport(connection, tls.context, self._tls_turns)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted)
            if isinstance(protocol, TlsTransport):
                with TimeLimit(self._handshake_timeout):
                    fault = await protocol.handshake
                if fault:
                    _logger.debug("no TLS with %s: %s", connection.peer, fault)
        except (OSError, TimeoutError) as error:
            _logger.debug("a connection did not come about: %s", error)
        finally:
            if not connection.made and isinstance(protocol, TlsTransport):
                protocol.abort()

    def _after_connecting(self, connection: ServerConnection, accepted: socket.socket) -> None:
        connection.note_connected()
        if not connection.made:
            accepted.close()
            self._connections.discard(connection)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _nobody() -> None:
    """The owner of a connection, where that does not matter."""


def _listening(family: int, address: tuple[str, int], *, both: bool = False) -> socket.socket:
    """A socket that listens; ``both``: an IPv6 one for IPv4 as well."""
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
