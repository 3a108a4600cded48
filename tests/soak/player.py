"""Plays sessions against the server's connections, and looks after each whether anything is left of it.

Everything of the HTTP/2 transport but sockets is real: TLS, connections, calls, bounds, authentication,
admission. The peers are sessions over peers in memory, the handlers answer at random, and the clock is
moved by hand: so a thousand sessions pass in a second, and each can be played again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import warnings
from collections.abc import Iterable
from typing import Any

from remsvc.status import StatusCode
from tests.soak.answers import Answers, CrashError
from tests.soak.memory_transport import MemorySocket
from tests.soak.output import Output, OutputError, streams_of
from tests.soak.search import Finding
from tests.soak.sessions import Session, Step
from tests.soak.soaked_server import SoakedServer
from tests.soak.tls_peer import TlsPeer
from tests.soak.virtual_time import VirtualTimeLoop, turns

_CPU_SECONDS = 10.0
# After a session's last step, until whatever a peer left behind has met its deadline.
_SETTLING = (0.1, 1.0, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 60.0, 60.0, 1_000.0, 1_000.0, 4_000.0)
# For every call of an undamaged one to be answered.
_ANSWERING = (0.5,) * 60
_TURNS, _TURNS_OF_ACCEPTING = 4, 8
# What a session sends is at most a few megabytes, of which some 30 kB are read at once.
_MOST_READS = 1_000
_A_DEADLINE = 1.0


class Player:
    """Plays sessions, each after the one before.

    Args:
        loop: its own, which it runs in.
    """

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._servers: dict[str, SoakedServer] = {}
        self._problems: list[str] = []
        self._count = 0
        self._peers: dict[int, MemorySocket] = {}

    async def play(self, session: Session) -> None:
        """Play one. Raises :class:`Finding`."""
        self._problems.clear()
        self._count += 1
        started = time.process_time()
        server = await self._server(session)
        server.begin(session)
        self._peers.clear()
        await self._steps(session, server)
        await self._settle(session, server)
        self._check(session, server)
        if any(step.act in {"drain", "end"} for step in session.steps):
            del self._servers[session.limits]
            await server.end()
        if (took := time.process_time() - started) > _CPU_SECONDS:
            self._problems.append(f"it took {took:.1f} s of work")
        if self._problems:
            raise Finding("; ".join(self._problems))

    async def end(self) -> None:
        """End the servers."""
        for server in self._servers.values():
            await server.end()

    def report(self, problem: str, error: BaseException | None = None) -> None:
        """Note what may never happen."""
        if not isinstance(error, CrashError):
            self._problems.append(problem)

    async def _server(self, session: Session) -> SoakedServer:
        if session.limits not in self._servers:
            self._servers[session.limits] = SoakedServer(session.limits)
            await self._servers[session.limits].listen()
        return self._servers[session.limits]

    async def _steps(self, session: Session, server: SoakedServer) -> None:
        for step in session.steps:
            if step.act in {"plain", "windows", "tls", "tls-http1"}:
                self._connect(step, server)
            elif step.act == "turn":
                await self._turn(int(step.amount))
            elif step.act == "pass":
                self._loop.advance(step.amount)
                await self._turn(2)
            elif step.act in {"drain", "end"}:
                server.stop(step)
            elif step.act == "revoke":
                server.revoke()
            elif (peer := self._peers.get(step.connection)) is not None:
                _do(peer, step)
            self._check_bounds(server)

    def _connect(self, step: Step, server: SoakedServer) -> None:
        peer: MemorySocket
        windows = step.act == "windows"
        if encrypted := step.act.startswith("tls"):
            protocol = "h2" if step.act == "tls" else "http/1.1"
            peer = TlsPeer(protocol, windows=windows, report=self.report)
        else:
            peer = MemorySocket(windows=windows, report=self.report)
        self._peers[step.connection] = peer
        # Each session comes from an address of its own, as from other hosts.
        network = f"10.{self._count >> 16 & 255}.{self._count >> 8 & 255}.{self._count & 255}"
        self._loop.arrive(server.port(encrypted=encrypted), peer, (network, step.connection))

    async def _turn(self, count: int) -> None:
        encrypted = [peer for peer in self._peers.values() if isinstance(peer, TlsPeer)]
        if not encrypted:
            await turns(count)
            return
        for _ in range(count):
            await turns(1)
            for peer in encrypted:
                peer.look()

    def _check_bounds(self, server: SoakedServer) -> None:
        unread, unsent = server.connections.shared.unread.total, server.connections.shared.unsent.total
        waiting = sum(peer.unsent for peer in self._peers.values())
        if not 0 <= unread <= server.limits.max_unread_bytes:
            self.report(f"{unread} bytes are counted as unread")
        if unsent < waiting:
            self.report(f"{unsent} bytes are counted as unsent, and {waiting} wait to be taken")

    async def _settle(self, session: Session, server: SoakedServer) -> None:
        """Let time pass until nothing is left, at the latest by the last deadline."""
        await self._turn(_TURNS_OF_ACCEPTING)
        for _ in range(_MOST_READS):
            if not any(peer.has_unread for peer in self._peers.values()):
                break
            await self._turn(_TURNS)
        for seconds in _ANSWERING if session.undamaged else ():
            if not self._tasks_left():
                break
            self._loop.advance(seconds)
            await self._turn(_TURNS)
        for seconds in _SETTLING:
            if not len(server.connections) and not self._tasks_left():
                break
            self._loop.advance(seconds)
            await self._turn(_TURNS)
        # What one read brought is taken in by turns, of two calls each.
        for _ in range(_MOST_READS):
            if not len(server.connections) and not self._tasks_left():
                break
            self._loop.advance(_A_DEADLINE)
            await self._turn(_TURNS)
        await self._turn(_TURNS)

    def _tasks_left(self) -> set[asyncio.Task[Any]]:
        """Those that are not of the servers themselves."""
        own = {task for server in self._servers.values() for task in server.own_tasks}
        return asyncio.all_tasks(self._loop) - own - {asyncio.current_task()}

    def _check(self, session: Session, server: SoakedServer) -> None:
        connections = server.connections
        for task in self._tasks_left():
            self.report(f"left behind: {task!r}")
            task.cancel()
        counts = {
            "connections": len(connections),
            "connections of callers": connections.of_callers,
            "bytes unread": connections.shared.unread.total,
            "bytes unsent": connections.shared.unsent.total,
            "calls in progress": server.admission.in_progress,
        }
        for what, count in counts.items():
            if count:
                self.report(f"left behind: {count} {what}")
        for number, peer in self._peers.items():
            if not (peer.is_closed or (server.stopping and not peer.is_accepted)):
                self.report(f"connection {number} was never closed")
            self._check_output(session, server.answers, number, peer)

    def _check_output(self, session: Session, answers: Answers, number: int, peer: MemorySocket) -> None:
        try:
            output = Output(peer.received, decode=session.undamaged)
        except OutputError as error:
            self.report(f"connection {number}: {error}")
            return
        for stream, data in output.data.items():
            written = answers.written.get((number, stream))
            if written is not None and not written.startswith(data):
                self.report(f"connection {number}, stream {stream}: others' data")
        if session.undamaged:
            self._check_answered(session, answers, output)

    def _check_answered(self, session: Session, answers: Answers, output: Output) -> None:
        if output.errors:
            self.report(f"an undamaged session had errors: {output.errors}")
        sent = bytearray().join(step.data for step in session.steps)
        begun, given_up = streams_of(sent)
        left = begun - given_up - output.ended - {stream for _, stream in answers.hanging}
        if left and not output.asked:  # the peers of sessions answer no ping: it may be gone, for the server
            self.report(f"never answered: streams {sorted(left)}")
        for (_, stream), status in answers.statuses.items():
            # Its time may be over while the answer waits to be written.
            if output.statuses.get(stream, status) not in {status, StatusCode.DEADLINE_EXCEEDED}:
                self.report(f"stream {stream} ended with {output.statuses[stream]}, not {status}")
            elif output.statuses.get(stream) == status and output.data[stream] != answers.written[0, stream]:
                self.report(f"stream {stream} ended, and not all of its data came")


def _do(peer: MemorySocket, step: Step) -> None:
    if step.act == "give":
        peer.give(step.data)
    elif step.act == "garble":
        assert isinstance(peer, TlsPeer)
        peer.give_unencrypted(step.data)
    elif step.act == "take":
        peer.take(int(step.amount))
    elif step.act == "eof":
        peer.give_eof()
    else:
        peer.reset(int(step.amount))


class _Watch(logging.Handler):
    """Reports what is logged as an error."""

    def __init__(self, player: Player) -> None:
        super().__init__(logging.ERROR)
        self._player = player

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._player.report(f"logged: {record.getMessage()} {error!r}", error)


def play_each(sessions: Iterable[Session]) -> None:
    """Play sessions until there are no more. Raises :class:`Finding` of the first that breaks something."""
    loop = VirtualTimeLoop()
    player = Player(loop)
    watch = _Watch(player)
    loop.set_exception_handler(
        lambda _, context: player.report(f"{context['message']}: {context.get('exception')!r}")
    )
    raised, sys.unraisablehook = sys.unraisablehook, lambda raised: player.report(f"unraisable: {raised!r}")
    logging.getLogger().addHandler(watch)

    async def play() -> None:
        try:
            for session in sessions:
                await player.play(session)
        finally:
            await player.end()

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            loop.run_until_complete(play())
    finally:
        logging.getLogger().removeHandler(watch)
        sys.unraisablehook = raised
        loop.close()
