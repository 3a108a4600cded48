"""The server's assembly and life cycle."""

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
from typing import Any

from remsvc.errors import ServeError, TransportEndedError
from remsvc.execution.engine_choice import create_engine
from remsvc.execution.jobs.transient import PassingJobs
from remsvc.execution.lookups import Lookups
from remsvc.server.access import Access
from remsvc.server.audit.audit import Audit
from remsvc.server.audit.file import AuditFileInUseError
from remsvc.server.calls import health
from remsvc.server.calls.methods import methods_of
from remsvc.server.calls.reflection import ReflectionService
from remsvc.server.commands.lifecycle import CommandLifecycle
from remsvc.server.commands.runner import CommandRunner
from remsvc.server.commands.service import SERVICE_NAME, CommandService
from remsvc.server.config import ServerConfig
from remsvc.server.freed_memory import give_back_freed_memory
from remsvc.server.identity import peer_owner
from remsvc.server.jobs.config import JobConfig
from remsvc.server.logs import Logs, fields
from remsvc.server.own_user import runs_privileged
from remsvc.server.policy.in_force import PolicyInForce
from remsvc.server.reload import Reloader
from remsvc.server.transport import open_transport
from remsvc.server.transport_choice import transport_fault

_logger = logging.getLogger("remsvc.server")


def _print_address(address: str) -> None:
    print(f"listening on {address}", flush=True)  # noqa: T201  the contract's line


def serve(config: ServerConfig, on_listening: Callable[[str], None] = _print_address) -> int:
    """Serve until SIGTERM or SIGINT (Windows: also Ctrl-Break); blocks.

    After the signal nothing new starts, and what runs gets the configured grace; a second signal
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
        TransportEndedError: nobody can reach the server any more. Durable jobs go on; it is to be started
            again.
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
            asyncio.run(_serve(config, state_dir, on_listening))
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


async def _serve(config: ServerConfig, state_dir: Path | None, on_listening: Callable[[str], None]) -> None:
    audit = Audit(config.audit)
    try:
        await audit.open()
    except AuditFileInUseError as error:
        raise ServeError(str(error)) from error
    try:
        await _serve_audited(config, state_dir, audit, on_listening)
    finally:
        await audit.close()
    _logger.info("stopped")


async def _serve_audited(
    config: ServerConfig, state_dir: Path | None, audit: Audit, on_listening: Callable[[str], None]
) -> None:
    def refused(method: str, peer: str, reason: str) -> None:
        if audit.unauthenticated(method, peer, reason):
            _log_refusal(method, peer, reason)

    jobs = None
    access = Access(config, refused)
    lookups = Lookups()
    policy = PolicyInForce(config.policy.compile(), access.authentication.knows, lookups)
    groups = config.trees.find_groups()
    if state_dir is not None and config.jobs is not None:
        # Not on Windows, where half of what they import does not exist.
        from remsvc.execution.jobs.jobs import Jobs

        jobs = Jobs(
            state_dir,
            config.jobs.limits,
            groups,
            audit,
            policy,
            config.command_limits,
            config.trees.output_wait,
            lookups,
        )
        policy.has_input = jobs.has_input
        policy.places.jobs_running, policy.places.on_room = jobs.running_of, jobs.start_waiting
    engine = (
        jobs.engine
        if jobs is not None
        else create_engine(config.command_limits, groups, config.trees.output_wait)
    )
    await (jobs or engine).open()
    try:
        loop = asyncio.get_running_loop()
        draining: asyncio.Future[None] = loop.create_future()
        passing = jobs.passing if jobs is not None else PassingJobs("", audit)
        runner = CommandRunner(
            engine,
            passing,
            time_limit=config.cmd_timeout,
            output_limit=config.max_output_bytes,
            lookups=lookups,
        )
        reloader = Reloader(config)
        draining.add_done_callback(lambda _: runner.withdraw_waiting())
        lifecycle = CommandLifecycle(runner, access.authentication, policy, audit, draining)
        commands = CommandService(
            runner, lifecycle, config.limits.stream_idle, config.transport, lambda: engine.trees
        )
        services = {SERVICE_NAME: commands.methods()}
        if jobs is not None and config.jobs is not None:
            from remsvc.server.jobs.service import SERVICE_NAME as JOB_SERVICE_NAME
            from remsvc.server.jobs.service import JobService

            job_service = JobService(jobs, access.authentication, policy, audit, config.jobs, draining)
            services[JOB_SERVICE_NAME] = job_service.methods()
            reloader.add(lambda new: partial(job_service.use, new.jobs or JobConfig()))

        reloader.add(access.prepare)
        reloader.add(lambda new: partial(setattr, policy, "policy", new.policy.compile()))
        reloader.add(lambda _: runner.withdraw_waiting)  # what it permits may be other commands now
        reloader.add(lambda _: policy.places.note_limits)
        if jobs is not None:
            start_waiting = jobs.start_waiting
            reloader.add(lambda _: start_waiting)  # more may run now
        reloader.add(lambda _: partial(audit.note_server, "reloaded"))
        services[health.SERVICE_NAME] = health.HealthService(services, draining).methods()
        reflected = ReflectionService(services).methods()
        methods = methods_of(*services.values(), reflected)
        transport = open_transport(config, methods, access)
        address = await transport.start(config.host, config.port)
        stop: asyncio.Queue[str] = asyncio.Queue()

        def on_hangup() -> None:
            audit.reopen()
            reloader.ask()

        _on_signals(loop, stop.put_nowait, on_hangup)
        _logger.info(
            "listening %s", fields(address=address, tls=config.tls is not None, transport=config.transport)
        )
        on_listening(address)
        # What is here now stays: no reason to look through it again and again.
        gc.freeze()
        async with _in_background(reloader.run(), access.end_expired_calls()):
            grace = 0.0
            try:
                received = await _signal_to_stop(stop, transport.ended())
                grace = config.shutdown_grace
                _logger.info("stopping %s", fields(signal=received, grace=f"{grace:g}s"))
            finally:
                draining.set_result(None)
                second_signal = asyncio.ensure_future(stop.get())
                await transport.stop(grace, second_signal)
                second_signal.cancel()
    finally:
        await (jobs or engine).close()


@asynccontextmanager
async def _in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Meanwhile do ``works``, which never end by themselves; that one fails is logged at once."""
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


def _log_refusal(method: str, peer: str, reason: str) -> None:
    _logger.warning("unauthenticated %s", fields(method=method, peer=peer, reason=reason))
