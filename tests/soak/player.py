"""Plays sessions against the server's connections, and looks after each whether anything is left of it.

Everything of the HTTP/2 transport but sockets and TLS is real: connections, calls, bounds, authentication,
admission. The peers are sessions over transports in memory, the handlers answer at random, and the clock is
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

from remsvc.server.admission import Admission
from remsvc.server.authentication import Authenticator
from remsvc.server.calls import Calls
from remsvc.server.decision import Rate
from remsvc.server.failed_authentication import FailedAuthentications
from remsvc.server.http2.connections import Connections
from remsvc.server.limits_config import LimitsConfig
from remsvc.server.open_calls import Authentication
from remsvc.server.tokens import Credential, TokenTable, digest_of
from tests.soak.answers import Answers, CrashError
from tests.soak.memory_transport import MemoryTransport
from tests.soak.output import Output, OutputError, streams_of
from tests.soak.search import Finding
from tests.soak.sessions import TOKEN, Session, Step
from tests.soak.virtual_time import VirtualTimeLoop, turns

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
_KNOWN = Authenticator(TokenTable([Credential("soak", digest_of(TOKEN))]))
_NOBODY = Authenticator(TokenTable([]))
_CPU_SECONDS = 10.0
# After a session's last step, until whatever a peer left behind has met its deadline.
_SETTLING = (0.1, 1.0, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 60.0, 60.0, 1_000.0, 1_000.0, 4_000.0)
# For every call of an undamaged one to be answered.
_ANSWERING = (0.5,) * 60
_TURNS = 4
# What a session sends is at most a few megabytes, of which some 30 kB are read at once.
_MOST_READS = 1_000


class _Server:
    """One that is listened to by nobody."""

    def __init__(self, limits: LimitsConfig) -> None:
        loop = asyncio.get_running_loop()
        self.limits = limits
        self.draining: asyncio.Future[None] = loop.create_future()
        self.answers = Answers(self.draining)
        failures = FailedAuthentications(limits.failed_authentications)
        self._authentication = Authentication(_KNOWN, lambda *_: None, failures)
        self.admission = Admission(limits)
        calls = Calls(self._authentication, self.admission, limits.request_timeout)
        self.connections = Connections(limits, calls, self.answers.methods)
        self._watching = loop.create_task(self.connections.watch_over())
        self._stopping: list[asyncio.Task[None]] = []

    @property
    def own_tasks(self) -> set[asyncio.Task[Any]]:
        return {self._watching}

    def begin(self, session: Session) -> None:
        """Be as new for a session."""
        self.answers.begin(session.answers)
        self._authentication.use(_KNOWN)

    def revoke(self) -> None:
        """Let no caller be known any more."""
        self._authentication.use(_NOBODY)

    def stop(self, step: Step) -> None:
        if not self.draining.done():
            self.draining.set_result(None)
        work = self.connections.drain if step.act == "drain" else self.connections.end
        self._stopping.append(asyncio.get_running_loop().create_task(work(step.amount)))

    async def end(self) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])


class Player:
    """Plays sessions, each after the one before.

    Args:
        loop: its own, which it runs in.
    """

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._servers: dict[str, _Server] = {}
        self._problems: list[str] = []
        self._count = 0

    async def play(self, session: Session) -> None:
        """Play one. Raises :class:`Finding`."""
        self._problems.clear()
        self._count += 1
        started = time.process_time()
        server = self._server(session)
        server.begin(session)
        transports = await self._steps(session, server)
        for _ in range(_MOST_READS):
            if not any(transport.has_unread for transport in transports.values()):
                break
            await turns(_TURNS)
        await self._settle(session, server)
        self._check(session, server, transports)
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

    def _server(self, session: Session) -> _Server:
        if session.limits not in self._servers:
            self._servers[session.limits] = _Server(LIMITS[session.limits])
        return self._servers[session.limits]

    async def _steps(self, session: Session, server: _Server) -> dict[int, MemoryTransport]:
        transports: dict[int, MemoryTransport] = {}
        for step in session.steps:
            if step.act in {"plain", "tls", "tls-http1"}:
                self._connect(step, server, transports)
            elif step.act == "turn":
                await turns(int(step.amount))
            elif step.act == "pass":
                self._loop.advance(step.amount)
                await turns(2)
            elif step.act in {"drain", "end"}:
                server.stop(step)
            elif step.act == "revoke":
                server.revoke()
            elif (transport := transports.get(step.connection)) is not None:
                if step.act == "give":
                    transport.give(step.data)
                elif step.act == "take":
                    transport.take(int(step.amount))
                elif step.act == "eof":
                    transport.give_eof()
                else:
                    transport.reset(int(step.amount))
            self._check_bounds(server, transports)
        return transports

    def _check_bounds(self, server: _Server, transports: dict[int, MemoryTransport]) -> None:
        unread, unsent = server.connections.unread.total, server.connections.unsent.total
        waiting = sum(transport.unsent for transport in transports.values())
        if not 0 <= unread <= server.limits.max_unread_bytes:
            self.report(f"{unread} bytes are counted as unread")
        if unsent < waiting:
            self.report(f"{unsent} bytes are counted as unsent, and {waiting} wait to be taken")

    def _connect(self, step: Step, server: _Server, transports: dict[int, MemoryTransport]) -> None:
        # Each session comes from an address of its own, as from other hosts.
        network = f"10.{self._count >> 16 & 255}.{self._count >> 8 & 255}.{self._count & 255}"
        connection = server.connections.new(f"ipv4:{network}:{step.connection}", network)
        if connection is not None:
            transports[step.connection] = MemoryTransport(self._loop, connection, step.act, self.report)

    async def _settle(self, session: Session, server: _Server) -> None:
        """Let time pass until nothing is left, at the latest by the last deadline."""
        await turns(_TURNS)
        for seconds in _ANSWERING if session.undamaged else ():
            if not self._tasks_left():
                break
            self._loop.advance(seconds)
            await turns(_TURNS)
        for seconds in _SETTLING:
            if not len(server.connections) and not self._tasks_left():
                break
            self._loop.advance(seconds)
            await turns(_TURNS)
        await turns(_TURNS)

    def _tasks_left(self) -> set[asyncio.Task[Any]]:
        """Those that are not of the servers themselves."""
        own = {task for server in self._servers.values() for task in server.own_tasks}
        return asyncio.all_tasks(self._loop) - own - {asyncio.current_task()}

    def _check(self, session: Session, server: _Server, transports: dict[int, MemoryTransport]) -> None:
        connections = server.connections
        for task in self._tasks_left():
            self.report(f"left behind: {task!r}")
            task.cancel()
        counts = {
            "connections": len(connections),
            "bytes unread": connections.unread.total,
            "bytes unsent": connections.unsent.total,
            "calls in progress": server.admission.in_progress,
        }
        for what, count in counts.items():
            if count:
                self.report(f"left behind: {count} {what}")
        for number, transport in transports.items():
            if not transport.lost:
                self.report(f"connection {number} was never closed")
            self._check_output(session, server.answers, number, transport)

    def _check_output(
        self, session: Session, answers: Answers, number: int, transport: MemoryTransport
    ) -> None:
        try:
            output = Output(transport.taken, decode=session.undamaged)
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
        if left := begun - given_up - output.ended - {stream for _, stream in answers.hanging}:
            self.report(f"never answered: streams {sorted(left)}")
        for (_, stream), status in answers.statuses.items():
            if output.statuses.get(stream, status) != status:
                self.report(f"stream {stream} ended with {output.statuses[stream]}, not {status}")
            elif stream in output.statuses and output.data[stream] != answers.written[0, stream]:
                self.report(f"stream {stream} ended, and not all of its data came")


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
        for session in sessions:
            await player.play(session)
        await player.end()

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            loop.run_until_complete(play())
    finally:
        logging.getLogger().removeHandler(watch)
        sys.unraisablehook = raised
        loop.close()
