"""The server's assembly and life cycle."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from remsvc.errors import RemSvcError
from remsvc.execution.engine import create_engine
from remsvc.execution.passing_jobs import PassingJobs
from remsvc.server.access import Access
from remsvc.server.admission import Admission
from remsvc.server.audit import Audit
from remsvc.server.audit_file import AuditFileInUseError
from remsvc.server.command_runner import CommandRunner
from remsvc.server.command_service import SERVICE_NAME, CommandService
from remsvc.server.command_turn import Turns
from remsvc.server.config import ServerConfig
from remsvc.server.connection_guard import ConnectionGuard
from remsvc.server.grpc_transport.affected_versions import installed_version_fault
from remsvc.server.grpc_transport.termination import wait_until_ended
from remsvc.server.job_config import JobConfig
from remsvc.server.logs import Logs, fields
from remsvc.server.method_handlers import GuardedHandlers
from remsvc.server.policy_in_force import PolicyInForce
from remsvc.server.reload import Reloader

_logger = logging.getLogger("remsvc.server")

_CHANNEL_OPTIONS = (
    # Two servers on one port would share its calls at random.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
    # A client that vanished without a word is noticed within about a minute, and its command ended.
    ("grpc.keepalive_time_ms", 40_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
# After the grace: calls are cancelled, and their commands killed.
_END_SECONDS = 5.0


class ServeError(RemSvcError):
    """The server cannot start, such as when its port is taken."""


class TransportEndedError(RemSvcError):
    """The transport, which takes the calls from the network, has ended though nobody asked for it."""


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
    if (fault := installed_version_fault()) is not None:
        raise ServeError(fault)
    try:
        logs = Logs(config.log_level, config.log_file)
    except OSError as error:
        raise ServeError(f"the log file {config.log_file} cannot be opened: {error.strerror}") from error
    with logs:
        for warning in config.warnings:
            _logger.warning("%s", warning)
        with _locked_state_dir(config) as state_dir:
            asyncio.run(_serve(config, state_dir, on_listening))
    return 0


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
    jobs = None
    policy = PolicyInForce(config.policy())
    if state_dir is not None and config.jobs is not None:
        # Not on Windows, where half of what they import does not exist.
        from remsvc.execution.jobs import Jobs

        jobs = Jobs(state_dir, config.jobs.limits, config.jobs.groups, audit, policy, config.command_limits)
        policy.jobs_running = jobs.running_of
    engine = jobs.engine if jobs is not None else create_engine(config.command_limits)
    await (jobs or engine).open()
    try:
        loop = asyncio.get_running_loop()
        draining: asyncio.Future[None] = loop.create_future()
        passing = jobs.passing if jobs is not None else PassingJobs("", audit)
        runner = CommandRunner(
            engine, passing, time_limit=config.cmd_timeout, output_limit=config.max_output_bytes
        )
        reloader = Reloader(config)
        draining.add_done_callback(lambda _: runner.withdraw_waiting())
        turns = Turns(runner, policy, audit, draining)
        commands = CommandService(runner, turns, config.limits.stream_idle)
        services = {SERVICE_NAME: commands.handlers()}
        if jobs is not None and config.jobs is not None:
            from remsvc.server.job_service import SERVICE_NAME as JOB_SERVICE_NAME
            from remsvc.server.job_service import JobService

            job_service = JobService(jobs, policy, audit, config.jobs, draining)
            services[JOB_SERVICE_NAME] = job_service.handlers()
            reloader.add(lambda new: partial(job_service.use, new.jobs or JobConfig()))

        def refused(method: str, peer: str, reason: str) -> None:
            _log_refusal(method, peer, reason)
            audit.unauthenticated(method, peer, reason)

        access = Access(config, refused)
        reloader.add(access.prepare)
        reloader.add(lambda new: partial(setattr, policy, "policy", new.policy()))
        reloader.add(lambda _: runner.withdraw_waiting)  # what it permits may be other commands now
        if jobs is not None:
            start_waiting = jobs.start_waiting
            reloader.add(lambda _: start_waiting)  # more may run now
        reloader.add(lambda _: partial(audit.note_server, "reloaded"))
        admission = Admission(config.limits)
        handlers = GuardedHandlers(admission.guard, access.authentication.guard)
        handlers.add_generic_rpc_handlers(tuple(services.values()))
        health_servicer = _add_health_and_reflection(handlers, services)
        server = grpc.aio.server(
            handlers=(handlers,), options=(*_CHANNEL_OPTIONS, *config.limits.channel_options())
        )
        address = _listen(server, config, access.credentials)
        stop: asyncio.Queue[str] = asyncio.Queue()

        def on_hangup() -> None:
            audit.reopen()
            reloader.ask()

        _on_signals(loop, stop.put_nowait, on_hangup)
        await server.start()
        for name in ("", *services):
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        _logger.info("listening %s", fields(address=address, tls=config.tls is not None))
        on_listening(address)
        # What is here now stays: no reason to look through it again and again.
        gc.freeze()
        guard = ConnectionGuard(admission, config.limits, int(address.rpartition(":")[2]))
        async with _in_background(reloader.run(), access.end_expired_streams(), guard.run()):
            grace = 0.0
            try:
                received = await _signal_to_stop(stop, wait_until_ended(server))
                grace = config.shutdown_grace
                _logger.info("stopping %s", fields(signal=received, grace=f"{grace:g}s"))
            finally:
                draining.set_result(None)
                await health_servicer.enter_graceful_shutdown()
                await _stop(server, grace, stop)
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
        cause = ended.exception()
    finally:
        received.cancel()
        ended.cancel()
    reason = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
    _logger.critical("nobody can reach the server any more: its transport has ended by itself%s", reason)
    raise TransportEndedError(f"the server's transport has ended by itself{reason}") from cause


async def _stop(server: grpc.aio.Server, grace: float, signals: asyncio.Queue[str]) -> None:
    stopping = asyncio.ensure_future(server.stop(grace))
    second_signal = asyncio.ensure_future(signals.get())
    await asyncio.wait({stopping, second_signal}, return_when=asyncio.FIRST_COMPLETED)
    second_signal.cancel()
    if not stopping.done():
        await server.stop(0)
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stopping, _END_SECONDS)


def _add_health_and_reflection(
    handlers: GuardedHandlers, services: Iterable[str]
) -> health.aio.HealthServicer:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, handlers)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.aio.ReflectionServicer(names), handlers
    )
    return servicer


def _listen(server: grpc.aio.Server, config: ServerConfig, credentials: grpc.ServerCredentials | None) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    try:
        if credentials is None:
            port = server.add_insecure_port(f"{host}:{config.port}")
        else:
            port = server.add_secure_port(f"{host}:{config.port}", credentials)
    except RuntimeError as error:
        raise ServeError(
            f"cannot listen on {host}:{config.port}: the port is in use, the address is not this "
            f"host's, or there is no permission"
        ) from error
    return f"{host}:{port}"


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
