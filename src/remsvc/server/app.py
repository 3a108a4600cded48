"""Puts a server together, runs it until a signal, and stops it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remsvc.errors import ServeError, TransportEndedError
from remsvc.execution.engine_choice import create_engine
from remsvc.execution.jobs.transient import PassingJobs
from remsvc.execution.lookups import Lookups
from remsvc.server.access import Access
from remsvc.server.audit.audit import Audit
from remsvc.server.audit.file import AuditFileInUseError
from remsvc.server.bounds.freed_memory import give_back_freed_memory
from remsvc.server.calls import health
from remsvc.server.calls.methods import Methods, methods_of
from remsvc.server.calls.reflection import ReflectionService
from remsvc.server.commands.lifecycle import CommandLifecycle
from remsvc.server.commands.runner import CommandRunner
from remsvc.server.commands.service import SERVICE_NAME as COMMAND_SERVICE_NAME
from remsvc.server.commands.service import CommandService
from remsvc.server.config import ServerConfig
from remsvc.server.identity import peer_owner
from remsvc.server.jobs.config import JobConfig
from remsvc.server.logs import Logs, fields
from remsvc.server.own_user import runs_privileged
from remsvc.server.policy.in_force import PolicyInForce
from remsvc.server.reload import Reloader
from remsvc.server.transport import create_transport
from remsvc.server.transport_kinds import transport_fault

if TYPE_CHECKING:  # on Windows, half of what these import does not exist
    from remsvc.execution.jobs.jobs import Jobs
    from remsvc.execution.supervisor.cgroup import GroupParent
    from remsvc.server.jobs.service import JobService

_logger = logging.getLogger("remsvc.server")


def _print_address(address: str) -> None:
    print(f"listening on {address}", flush=True)  # noqa: T201  the contract's line


def serve(config: ServerConfig, on_listening: Callable[[str], None] = _print_address) -> int:
    """Serve until SIGTERM or SIGINT (Windows: also Ctrl-Break); blocks.

    After the signal nothing new starts, and what runs gets the configured time to finish; a second signal
    ends it at once.

    Args:
        config: what to serve.
        on_listening: called with ``HOST:PORT`` once calls are accepted; prints
            ``listening on HOST:PORT`` on standard output where nothing else is given.

    Returns:
        0 after a signal.

    Raises:
        ServeError: the port cannot be listened on, the log file not written, or the installed gRPC not
            be trusted with strangers.
        TransportEndedError: nobody can reach the server any more. Durable jobs go on: start it again.
    """
    if (fault := transport_fault(config.transport)) is not None:
        raise ServeError(fault)
    if config.auth.peer_uids is not None and (fault := peer_owner.fault()) is not None:
        raise ServeError(f"[server] peer_uid: {fault}")
    give_back_freed_memory()
    try:
        logs = Logs(config.log_level, config.log_file)
    except OSError as error:
        raise ServeError(f"the log file {config.log_file} cannot be opened: {error.strerror}") from error
    with logs:
        for warning in config.warnings:
            _logger.warning("%s", warning)
        if config.lets_anybody_in and runs_privileged():
            _logger.error("%s", _everybody_is_root(config))
        with _locked_state_dir(config) as state_dir:
            asyncio.run(_run_server(config, state_dir, on_listening))
    return 0


def _everybody_is_root(config: ServerConfig) -> str:
    who = "who can connect" if config.exposed else "user of this host"
    remedy = "give callers tokens (remsvc init makes everything that is needed)"
    if not config.exposed and sys.platform == "linux":
        remedy += ", or let root alone call: [server] peer_uid = 0, or --peer-uid 0"
    return f"EVERY {who} IS ROOT: this server runs as root, and asks nobody who he is; {remedy}"


@contextmanager
def _locked_state_dir(config: ServerConfig) -> Iterator[Path | None]:
    """The state directory, locked; None where durable jobs cannot be had."""
    if config.jobs is None or sys.platform == "win32":
        yield None
        return
    from remsvc.execution.state_dir import StateDirError, lock_state_dir

    try:
        lock = lock_state_dir(config.state_dir)
    except StateDirError as error:
        if config.state_dir_given:
            raise ServeError(str(error)) from error
        _logger.warning("no durable jobs: %s (choose another one with --state-dir)", error)
        yield None
        return
    try:
        yield config.state_dir
    finally:
        os.close(lock)


async def _run_server(
    config: ServerConfig, state_dir: Path | None, on_listening: Callable[[str], None]
) -> None:
    await Server(config, state_dir).run(on_listening)


class Server:
    """A server: its parts, put together when it is made, and their life from start to stop.

    Made within the event loop that it runs in, for one run.

    Args:
        config: what to serve.
        state_dir: for durable jobs, locked; None where they cannot be had.
    """

    def __init__(self, config: ServerConfig, state_dir: Path | None) -> None:
        self._config = config
        self._draining: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._audit = Audit(config.audit)
        self._access = Access(config, self._note_refusal)
        self._lookups = Lookups()
        self._policy = PolicyInForce(config.policy.compile(), self._access.verification.knows, self._lookups)
        groups = config.trees.find_groups()
        self._jobs = self._make_jobs(state_dir, groups)
        if self._jobs is not None:
            self._policy.share_with(self._jobs)
        self._engine = (
            self._jobs.engine
            if self._jobs is not None
            else create_engine(config.command_limits, groups, config.trees.output_wait)
        )
        self._runner = CommandRunner(
            self._engine,
            self._jobs.passing if self._jobs is not None else PassingJobs("", self._audit),
            time_limit=config.cmd_timeout,
            output_limit=config.max_output_bytes,
            lookups=self._lookups,
        )
        self._draining.add_done_callback(lambda _: self._runner.withdraw_waiting())
        self._job_service = self._make_job_service()
        self._reloader = self._make_reloader()

    async def run(self, on_listening: Callable[[str], None]) -> None:
        """Serve until a signal. Arguments and errors: see :func:`serve`."""
        try:
            await self._audit.open()
        except AuditFileInUseError as error:
            raise ServeError(str(error)) from error
        try:
            await (self._jobs or self._engine).open()
            try:
                await self._listen(on_listening)
            finally:
                await (self._jobs or self._engine).close()
        finally:
            await self._audit.close()
        _logger.info("stopped")

    # Putting it together

    def _make_jobs(self, state_dir: Path | None, groups: GroupParent | None) -> Jobs | None:
        config = self._config
        if state_dir is None or config.jobs is None:
            return None
        # Not on Windows, where half of what they import does not exist.
        from remsvc.execution.jobs.jobs import Jobs

        return Jobs(
            state_dir,
            config.jobs.limits,
            groups,
            observer=self._audit,
            gate=self._policy,
            process_limits=config.command_limits,
            output_wait=config.trees.output_wait,
            lookups=self._lookups,
        )

    def _make_job_service(self) -> JobService | None:
        if self._jobs is None or self._config.jobs is None:
            return None
        from remsvc.server.jobs.service import JobService

        return JobService(
            self._jobs,
            self._access.verification,
            self._policy,
            self._audit,
            self._config.jobs,
            self._draining,
        )

    def _methods(self) -> Methods:
        """All methods that can be called."""
        lifecycle = CommandLifecycle(
            self._runner, self._access.verification, self._policy, self._audit, self._draining
        )
        commands = CommandService(
            self._runner,
            lifecycle,
            self._config.limits.stream_idle,
            self._config.transport,
            lambda: self._engine.trees,
        )
        services = {COMMAND_SERVICE_NAME: commands.methods()}
        if self._job_service is not None:
            from remsvc.server.jobs.service import SERVICE_NAME as JOB_SERVICE_NAME

            services[JOB_SERVICE_NAME] = self._job_service.methods()
        services[health.SERVICE_NAME] = health.HealthService(services, self._draining).methods()
        reflected = ReflectionService(services).methods()
        return methods_of(*services.values(), reflected)

    def _make_reloader(self) -> Reloader:
        """The reloader, with each part that follows the configuration.

        Those whose change is an assignment, which cannot fail, come first: so the server never follows two
        configurations at once. Then comes what follows from the change.
        """
        reloader = Reloader(self._config)
        if self._job_service is not None:
            use_jobs = self._job_service.use
            reloader.add(lambda new: partial(use_jobs, new.jobs or JobConfig()))
        reloader.add(self._access.prepare)
        reloader.add(lambda new: partial(self._policy.use, new.policy.compile()))
        reloader.add(lambda _: self._runner.withdraw_waiting)  # what it permits may be other commands now
        reloader.add(lambda _: self._policy.note_limits)
        if self._jobs is not None:
            start_waiting = self._jobs.start_waiting
            reloader.add(lambda _: start_waiting)  # more may run now
        reloader.add(lambda _: partial(self._audit.note_server, "reloaded"))
        return reloader

    # Its life

    async def _listen(self, on_listening: Callable[[str], None]) -> None:
        """Accept calls until a signal, then let what runs finish."""
        config = self._config
        # Not before: a server that fails to open its files need not load a transport.
        transport = create_transport(config, self._methods(), self._access)
        address = await transport.start(config.host, config.port)
        signals: asyncio.Queue[str] = asyncio.Queue()
        _on_signals(asyncio.get_running_loop(), signals.put_nowait, self._on_hangup)
        _logger.info(
            "listening %s", fields(address=address, tls=config.tls is not None, transport=config.transport)
        )
        on_listening(address)
        # What is here now stays: no reason to look through it again and again.
        gc.freeze()
        async with _in_background(self._reloader.run(), self._access.end_expired_calls()):
            grace = 0.0
            try:
                received = await _signal_to_stop(signals, transport.ended())
                grace = config.shutdown_grace
                _logger.info("stopping %s", fields(signal=received, grace=f"{grace:g}s"))
            finally:
                self._draining.set_result(None)
                second_signal = asyncio.ensure_future(signals.get())
                await transport.stop(grace, second_signal)
                second_signal.cancel()

    def _on_hangup(self) -> None:
        self._audit.reopen()
        self._reloader.ask()

    def _note_refusal(self, method: str, peer: str, reason: str) -> None:
        if self._audit.unauthenticated(method, peer, reason):
            _logger.warning("unauthenticated %s", fields(method=method, peer=peer, reason=reason))


@asynccontextmanager
async def _in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do ``works`` during the block. They never end by themselves; a failure of one is logged at once."""
    tasks = [asyncio.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.critical("a task of the server's has failed", exc_info=error)


async def _signal_to_stop(signals: asyncio.Queue[str], transport_end: Coroutine[Any, Any, None]) -> str:
    """Wait for the first signal.

    Raises:
        TransportEndedError: ``transport_end`` came first.
    """
    received, ended = asyncio.ensure_future(signals.get()), asyncio.ensure_future(transport_end)
    try:
        await asyncio.wait({received, ended}, return_when=asyncio.FIRST_COMPLETED)
        if received.done():
            return received.result()
        ended.result()
        raise TransportEndedError("the server's transport has ended by itself")
    except TransportEndedError as error:
        _logger.critical("nobody can reach the server any more: %s", error)
        raise
    finally:
        for task in (received, ended):
            task.cancel()
        await asyncio.wait({received, ended})


def _on_signals(
    loop: asyncio.AbstractEventLoop, note: Callable[[str], None], on_hangup: Callable[[], None]
) -> None:
    if sys.platform == "win32":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGBREAK):
            signal.signal(number, lambda got, _: loop.call_soon_threadsafe(note, signal.Signals(got).name))
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, note, number.name)
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
