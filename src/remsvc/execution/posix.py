"""The engine on POSIX: gives the supervisor orders, and hears from it how commands end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from remsvc.errors import ExecutionError, StartError
from remsvc.execution.engine import Output, Process, ProcessEnd, ProcessSpec, WithdrawnError
from remsvc.execution.posix_process import PosixProcess
from remsvc.execution.posix_supervisor import SupervisorProcess
from remsvc.execution.supervisor.cgroup import GroupParent, why_not
from remsvc.execution.supervisor.frames import FrameReader
from remsvc.execution.supervisor.protocol import (
    NO_LIMITS,
    OUTPUT_WAIT,
    VERSION,
    DurableJob,
    Ended,
    Hello,
    KnownJob,
    Order,
    ProcessLimits,
    Refused,
    Start,
    Started,
    Wrote,
    read_event,
)
from remsvc.execution.supervisor.records import TIME_LIMIT, CommandId
from remsvc.time_limit import TimeLimit

_logger = logging.getLogger(__name__)

_HELLO_SECONDS = 20.0  # a new one takes less than a second, but not on a machine that is too busy
_RESTART_SECONDS = 1.0


class _NoHelloError(ExecutionError):
    """The supervisor ended before it said hello."""


class SupervisorTooNewError(ExecutionError):
    """A supervisor speaks a later version than this server does. It and its jobs are left alone."""


class JobListener(Protocol):
    """Who is told of durable jobs. Called in the event loop; must not block."""

    def on_supervisor(self, instance: str, known: Sequence[KnownJob]) -> None:
        """A supervisor is there: which one, and the jobs it knows."""
        ...

    def on_event(self, event: Started | Wrote | Ended) -> None:
        """A job has started, written something or ended."""
        ...

    def on_supervisor_lost(self) -> None:
        """The supervisor ended unasked. Another one follows."""
        ...


class PosixEngine(asyncio.Protocol):
    """Starts processes through a supervisor; see :class:`remsvc.execution.engine.Engine`.

    When a supervisor ends unasked, the outcomes of what it was running are not known. A new one is started
    for what comes next.

    Args:
        state_dir: where a supervisor that outlives this process listens; one that is there
            already is used. None: the supervisor ends with this process.
        jobs: who is told of durable jobs.
        groups: where control groups for commands can be had; None for nowhere.
        limits: what each process is held to.
        output_wait: seconds that it is waited for output that other processes still pass on.

    Attributes:
        trees: by what the supervisor tells the processes of commands apart, ``cgroup`` or ``parentage``;
            empty while there is no supervisor.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        jobs: JobListener | None = None,
        groups: GroupParent | None = None,
        limits: ProcessLimits = NO_LIMITS,
        output_wait: float = OUTPUT_WAIT,
    ) -> None:
        self._limits = limits
        self._state_dir = state_dir
        self._groups = groups
        self._jobs = jobs
        # A supervisor may outlive this engine: the next one must not count the same numbers again.
        self._numbers = itertools.count(secrets.randbits(48))
        self._processes: dict[int, PosixProcess] = {}
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._unsent = bytearray()
        self._flushing: asyncio.TimerHandle | None = None
        self._hello: asyncio.Future[None] | None = None
        self._supervisor = SupervisorProcess(state_dir, groups)
        self._restart: asyncio.Task[None] | None = None
        self._closing = False
        self._output_wait = output_wait
        self.trees = ""
        self.can_start_after = False

    async def open(self) -> None:
        """See :meth:`remsvc.execution.engine.Engine.open`.

        Raises:
            SupervisorTooNewError: a later version of the server left it.
        """
        try:
            await self._meet(await self._supervisor.connect())
        except _NoHelloError as error:
            if self._supervisor.is_child:
                raise
            # One that had nothing to do may have been about to end. Beside one that lives, another one would
            # take all of its jobs for lost.
            await self._supervisor.wait_until_gone()
            _logger.warning("%s; starting another one", error)
            await self._meet(self._supervisor.start())

    def launch(self) -> None:
        """Start a supervisor, where there is none. :meth:`open` waits for it: it needs a while.

        Raises:
            ExecutionError: it cannot be started.
        """
        self._supervisor.launch()

    def start(self, spec: ProcessSpec, after: Process | None = None) -> PosixProcess:
        process = PosixProcess(next(self._numbers), self.send)
        if self._transport is None:
            process.settle(StartError("the supervisor that starts commands is not running"))
            return process
        number = after.number if isinstance(after, PosixProcess) else None
        order = self.start_order(process.number, spec, after=number)
        self._processes[process.number] = process
        self.send(order)
        return process

    async def close(self, *, jobs_running: bool = False) -> None:
        """See :meth:`remsvc.execution.engine.Engine.close`.

        Args:
            jobs_running: the supervisor has durable jobs, and so outlives this process.
        """
        self._closing = True
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.wait([self._restart])
        self._flush()
        self._supervisor.let_go()
        if self._transport is not None:
            self._transport.write_eof()
        await self._supervisor.wait_for_end(jobs_running=jobs_running)
        if self._transport is not None:
            self._transport.abort()

    def start_order(
        self,
        name: CommandId,
        spec: ProcessSpec,
        *,
        after: CommandId | None = None,
        cwd_required: bool = False,
        job: DurableJob | None = None,
    ) -> Start:
        """What tells a supervisor to start a process; see :class:`Start`."""
        return Start(
            id=name,
            argv=spec.argv,
            env=spec.env,
            cwd=spec.cwd,
            output_limit=spec.output_limit,
            cwd_required=cwd_required,
            credentials=spec.credentials,
            time_limit=spec.time_limit,
            limits=self._limits,
            output_wait=self._output_wait,
            caller=spec.caller,
            after=after,
            job=job,
        )

    def send(self, order: Order, within: float = 0.0) -> None:
        """Send an order to the supervisor; without one there is nobody to be told.

        Args:
            within: seconds that it may wait for others to go with.
        """
        if self._transport is None:
            return
        self._unsent += order.encode()
        if not within:
            self._flush()
            return
        loop = asyncio.get_running_loop()
        if self._flushing is not None and self._flushing.when() > loop.time() + within:
            self._flushing.cancel()
            self._flushing = None
        if self._flushing is None:
            self._flushing = loop.call_later(within, self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._transport is not None and self._unsent:
            self._transport.write(bytes(self._unsent))
        self._unsent.clear()

    async def _meet(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._hello = loop.create_future()
        try:
            transport, _ = await loop.create_unix_connection(lambda: self, sock=connection)
        except BaseException:
            connection.close()
            raise
        try:
            with TimeLimit(_HELLO_SECONDS):
                await self._hello
        except TimeoutError:
            transport.abort()
            raise ExecutionError("the supervisor does not answer") from None
        except SupervisorTooNewError:
            self._hello = None  # nobody waits for it, or for another one
            transport.abort()
            raise
        except BaseException:
            transport.abort()
            raise

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # as that of any socket is

    def data_received(self, data: bytes) -> None:
        for header, blobs in self._frames.feed(data):
            try:
                event = read_event(header, blobs)
            except (LookupError, TypeError, ValueError) as error:
                if self._hello is not None and not self._hello.done():
                    raise  # a supervisor whose hello is not understood cannot be worked with
                _logger.error("what the supervisor says is not understood: %r in %.200r", error, header)
                continue
            if isinstance(event, Hello):
                self._greet(event)
            elif isinstance(event, Refused):
                self._on_refused(event)
            elif event is not None:
                if isinstance(event, Ended) and (left := event.record.left):
                    _logger.warning("command %s %s", event.id, left)
                if isinstance(event.id, str) and self._jobs is not None:
                    self._jobs.on_event(event)
                elif isinstance(event, Ended) and isinstance(event.id, int):
                    self._settle(event.id, event)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._flush()
        processes, self._processes = self._processes, {}
        for process in processes.values():
            process.settle(
                ExecutionError("the supervisor ended; whether the command ran to its end is not known")
            )
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(_NoHelloError("the supervisor ended before it said hello"))
            return
        if self._closing or self._hello is None or self._hello.cancelled():
            return
        _logger.error("the supervisor ended unasked; starting another one")
        if self._jobs is not None:
            self._jobs.on_supervisor_lost()
        self._restart = asyncio.get_running_loop().create_task(self._start_again())

    def _on_refused(self, refused: Refused) -> None:
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(
                ExecutionError(
                    f"{self._state_dir}: its supervisor takes no server that one of its own commands has "
                    f"started ({refused.reason}); jobs go on: start the server by other means"
                )
            )

    def _greet(self, hello: Hello) -> None:
        if self._hello is None:
            return
        if hello.version > VERSION:
            if not self._hello.done():
                self._hello.set_exception(
                    SupervisorTooNewError(
                        f"{self._state_dir}: its supervisor is of a later version of RemSvc (messages "
                        f"{hello.version}, known: {VERSION}); jobs go on: start that version again"
                    )
                )
            return
        if not self._hello.done():
            self._hello.set_result(None)
        self.can_start_after = hello.can_start_after
        self._note_trees("cgroup" if hello.groups else "parentage")
        if self._limits != NO_LIMITS and not hello.limits:
            _logger.error("[limits] for commands take effect when the jobs that run now have ended")
        if self._jobs is not None:
            self._jobs.on_supervisor(hello.instance, hello.jobs)

    def _note_trees(self, trees: str) -> None:
        if trees == self.trees:
            return
        self.trees = trees
        if trees == "cgroup":
            how = f" ({self._groups.how})" if self._groups is not None else ""
            _logger.info("process trees of commands: each command gets its own control group%s", how)
            return
        why = "the supervisor says why" if self._groups is not None else why_not()
        _logger.warning(
            "process trees of commands are told apart by parentage, which a command that means to can "
            "escape; control groups cannot be had: %s; docs/deployment.md says how to get there",
            why,
        )

    def _settle(self, number: int, event: Ended) -> None:
        process = self._processes.pop(number, None)
        if process is None:
            return  # of the engine before this one
        record, heads = event.record, event.heads or (b"", b"")
        if record.garbled:
            process.settle(ExecutionError(f"how the command ended is not understood: {record.garbled}"))
        elif record.withdrawn:
            process.settle(WithdrawnError("the command was withdrawn before it started"))
        elif record.error is not None:
            process.settle(StartError(record.error))
        else:
            process.settle(
                ProcessEnd(
                    record.exit_code,
                    record.signal,
                    timed_out=record.cause == TIME_LIMIT,
                    stdout=Output(heads[0], record.totals[0]),
                    stderr=Output(heads[1], record.totals[1]),
                )
            )

    async def _start_again(self) -> None:
        while True:
            await self._supervisor.kill()
            try:
                return await self.open()
            except (ExecutionError, OSError) as error:
                _logger.error("%s; trying again", error)
            await asyncio.sleep(_RESTART_SECONDS)
