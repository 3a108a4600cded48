"""Ends connections that take more than they may, by limits that gRPC itself does not have."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import NoReturn

from remsvc.server.bounds.floods import CountedWarnings
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.grpc_transport.proc_connections import TcpConnection, accepted
from remsvc.server.peers import PeerAddress, network_of, parse_peer
from remsvc.server.refusal import exhausted
from remsvc.tally import Tally

_INTERVAL = 0.2
# After something had to be cut: who does that comes back at once.
_INTERVAL_UNDER_ATTACK = 0.01
# Looking takes some microseconds a connection: of all time, at most the 20th part.
_SHARE = 20
# Setting up TLS and HTTP/2, and failed attempts to authenticate, take a few thousand.
_STRANGERS_BYTES = 128 * 1024
# What gRPC lets a peer send of a message before it has refused it for its size.
_REFUSED_BYTES = 16 * 1024 * 1024
# Health checks and pings on a connection that is kept.
_BYTES_A_LOOK = 1024
# Idle connections are closed from this share of max_connections on, down to the second one.
_FULL, _ROOM = 0.9, 0.75
_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class _Record:
    admitted: int = 0
    looks: int = 0
    over: bool = False  # when it was last looked at


class ConnectionGuard:
    """Looks at all connections some times a second, and cuts two kinds of them.

    One is a connection over which more has come than the calls that were admitted on it can have needed,
    such as endless headers, or a flood of any frames.

    The other, while nearly as many connections are open as may be, are those without a call: first those that
    never had one, and of these first those of the network that has most. So a crowd of idle connections keeps
    nobody out.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        # Verified calls by gRPC's name for the peer: now, and since they were last looked at.
        self._in_progress: Tally[str] = Tally()
        self._begun: Counter[str] = Counter()
        self._limits = limits
        self._port = 0
        self._call_bytes = limits.max_message_bytes + limits.max_metadata_bytes + _REFUSED_BYTES
        self._records: dict[PeerAddress, _Record] = {}
        self._cut = CountedWarnings("connections cut or refused")

    def begin(self, peer: str) -> None:
        """A verified call has begun. Raises :class:`RefusedError` where its connection has too many."""
        if self._in_progress.of(peer) >= self._limits.max_streams:
            raise exhausted(
                f"this connection has {self._limits.max_streams} calls in progress already", _RETRY_SECONDS
            )
        self._in_progress.add(peer)
        self._begun[peer] += 1

    def end(self, peer: str) -> None:
        """A verified call has ended."""
        self._in_progress.remove(peer)

    async def run(self, port: int) -> NoReturn:
        """Work until cancelled, on the connections to the server's ``port``."""
        self._port = port
        try:
            while True:
                started = time.monotonic()
                interval = _INTERVAL_UNDER_ATTACK if self.look() else _INTERVAL
                await asyncio.sleep(max(interval, _SHARE * (time.monotonic() - started)))
        finally:
            self._cut.say()

    def look(self) -> bool:
        """Look once. Returns whether too much has come over a connection."""
        connections = list(accepted(self._port))
        self._note_calls(connections)
        busy = {parse_peer(peer) for peer in self._in_progress}
        left = [connection for connection in connections if not self._too_much(connection, busy)]
        over = any(self._records[connection.peer].over for connection in connections)
        most = self._limits.max_connections
        if len(left) >= max(_FULL * most, 1):
            self._make_room(left, busy, len(left) - int(_ROOM * most))
        return over

    def _note_calls(self, connections: list[TcpConnection]) -> None:
        self._records = {
            connection.peer: self._records.get(connection.peer, _Record()) for connection in connections
        }
        for peer, count in self._begun.items():
            if (found := parse_peer(peer)) in self._records:
                self._records[found].admitted += count
        self._begun.clear()
        for record in self._records.values():
            record.looks += 1

    def _allowed(self, record: _Record) -> int:
        return _STRANGERS_BYTES + record.admitted * self._call_bytes + record.looks * _BYTES_A_LOOK

    def _too_much(self, connection: TcpConnection, busy: set[PeerAddress | None]) -> bool:
        record = self._records[connection.peer]
        was_over = record.over
        record.over = connection.received > self._allowed(record) and connection.peer not in busy
        if not (record.over and was_over):
            # Its call may be here and not have begun, where the event loop was kept busy: that is next.
            return False
        self._end(connection, "sent more than its calls")
        return True

    def _make_room(self, connections: list[TcpConnection], busy: set[PeerAddress | None], count: int) -> None:
        crowd = Counter(network_of(connection.peer.address) for connection in connections)
        idle = [connection for connection in connections if connection.peer not in busy]
        idle.sort(
            key=lambda connection: (
                self._records[connection.peer].admitted > 0,
                self._records[connection.peer].looks == 1,  # it may be about to begin its first call
                -crowd[network_of(connection.peer.address)],
            )
        )
        for connection in idle[:count]:
            self._end(connection, "idle while there were too many")

    def _end(self, connection: TcpConnection, reason: str) -> None:
        if connection.cut():
            self._cut.note(reason, network_of(connection.peer.address))
