"""The engine on POSIX: the server's side of the supervisor process."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import subprocess
import sys
from pathlib import Path

import remsvc
from remsvc.errors import ExecutionError, StartError
from remsvc.execution.engine import Outcome, Output, ProcessSpec
from remsvc.execution.frames import FrameReader, Header, encode_frame

_logger = logging.getLogger(__name__)

# -I: neither the working directory nor the environment may decide which code a root process runs.
_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from remsvc.execution.supervisor import main; main(int(sys.argv[2]))"
)
_ROOT = str(Path(remsvc.__file__).resolve().parents[1])
_CLOSE_SECONDS = 10.0
_RESTART_SECONDS = 1.0


class PosixProcess:
    """A process owned by the supervisor. See :class:`remsvc.execution.engine.Process`."""

    def __init__(self, engine: PosixEngine, number: int, outcome: asyncio.Future[Outcome]) -> None:
        self._engine = engine
        self._number = number
        self._outcome = outcome

    async def wait(self) -> Outcome:
        return await asyncio.shield(self._outcome)

    def end(self) -> None:
        if not self._outcome.done():
            self._engine.send({"op": "end", "id": self._number})


class PosixEngine(asyncio.Protocol):
    """Starts processes through a supervisor; see :class:`remsvc.execution.engine.Engine`.

    A supervisor that ends unasked costs the outcomes of what it was running; a new one is started
    for what comes next.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._outcomes: dict[int, asyncio.Future[Outcome]] = {}
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._restart: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._supervisor = subprocess.Popen(  # noqa: ASYNC220  a few milliseconds, once
                    [sys.executable, "-I", "-c", _BOOTSTRAP, _ROOT, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise ExecutionError(f"the supervisor could not be started: {error}") from error
        self._frames = FrameReader()
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=ours)

    def start(self, spec: ProcessSpec) -> PosixProcess:
        number = next(self._numbers)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(_retrieve)
        process = PosixProcess(self, number, outcome)
        if self._transport is None:
            outcome.set_exception(StartError("the supervisor that starts commands is not running"))
            return process
        self._outcomes[number] = outcome
        credentials = spec.credentials
        self.send(
            {
                "op": "start",
                "id": number,
                "argv": spec.argv,
                "env": dict(spec.env),
                "cwd": spec.cwd,
                "credentials": credentials and (credentials.uid, credentials.gid, credentials.groups),
                "time_limit": spec.time_limit,
                "output_limit": spec.output_limit,
            }
        )
        return process

    async def close(self) -> None:
        self._closing = True
        if self._restart is not None:
            self._restart.cancel()
        if self._transport is not None:
            self._transport.write_eof()
        if self._supervisor is not None:
            supervisor, self._supervisor = self._supervisor, None
            try:
                await asyncio.to_thread(supervisor.wait, _CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                supervisor.kill()
                await asyncio.to_thread(supervisor.wait)
        if self._transport is not None:
            self._transport.abort()

    def send(self, message: Header) -> None:
        """Send a message to the supervisor; without one there is nobody to be told."""
        if self._transport is not None:
            self._transport.write(encode_frame(message))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for header, blobs in self._frames.feed(data):
            outcome = self._outcomes.pop(header["id"])
            if outcome.done():
                continue
            if "error" in header:
                outcome.set_exception(StartError(header["error"]))
                continue
            heads = blobs or [b"", b""]
            stdout, stderr = map(Output, heads, header["totals"])
            outcome.set_result(
                Outcome(header["exit_code"], header["signal"], header["timed_out"], stdout, stderr)
            )

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        outcomes, self._outcomes = self._outcomes, {}
        for outcome in outcomes.values():
            if not outcome.done():
                outcome.set_exception(
                    ExecutionError("the supervisor ended; whether the command ran to its end is not known")
                )
        if not self._closing:
            _logger.error("the supervisor ended unasked; starting another one")
            self._restart = asyncio.get_running_loop().create_task(self._start_again())

    async def _start_again(self) -> None:
        if self._supervisor is not None:
            self._supervisor.kill()
            await asyncio.to_thread(self._supervisor.wait)
        while True:
            try:
                return await self.open()
            except ExecutionError as error:
                _logger.error("%s", error)
            await asyncio.sleep(_RESTART_SECONDS)


def _retrieve(outcome: asyncio.Future[Outcome]) -> None:
    """Mark an error as seen: a caller that was cancelled no longer waits for it."""
    if not outcome.cancelled():
        outcome.exception()
