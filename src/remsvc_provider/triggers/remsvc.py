"""The trigger: runs the commands of a deferred task in the triggerer.

The worker that defers a task makes one too, only to have its arguments stored: what runs commands is loaded
by :meth:`RemSvcTrigger.run`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

from remsvc.errors import RemSvcError
from remsvc.time_limit import TimeLimit
from remsvc_provider import sealing
from remsvc_provider.airflow_process import in_triggerer
from remsvc_provider.commands import KEYS
from remsvc_provider.masking import Masking
from remsvc_provider.origin import Origin
from remsvc_provider.outcome import EVT_ERROR, EVT_RESULTS, EVT_STATE, Outcome, RunState
from remsvc_provider.run_options import RunOptions
from remsvc_provider.settings import RESUME_AFTER
from remsvc_provider.task_state import (
    AIRFLOW_TELLS_KILLS,
    ANSWER_TIMEOUT,
    KILL_ANSWER_TIMEOUT,
    is_abandoned,
)
from remsvc_provider.version_compat import AirflowException

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context
    from airflow.triggers.base import TriggerEvent

    from remsvc.client.options import ConnectionOptions
    from remsvc_provider.plan import Plan
    from remsvc_provider.running.run import PlanRun

__all__ = ["EVT_ERROR", "EVT_RESULTS", "EVT_STATE", "RemSvcTrigger"]

_DEFAULTS: dict[str, Any] = {
    "origin": None,
    "deferred_at": None,
    "execution_timeout": None,
    "secrets": [],
    **asdict(RunOptions()),
}
_METADATA, _COMMANDS = "the authorization entry of metadata", "what commands hold of secrets"
RESUMED_AFTER = 15.0
"""A trigger that starts so many seconds after its task was deferred may have run before."""


class RemSvcTrigger(BaseTrigger):
    """Runs commands, and fires one event when they have ended.

    Where the server has durable jobs, nothing is lost and nothing runs twice when a triggerer stops,
    dies or runs this beside another one: the request ids, stored with it, lead to the same jobs. The
    event's payload is ``{"state", "results", "error_msg"}``, with the results keyed by ``tid``.

    Args:
        commands: the command dicts of the operator, rendered and checked.
        grpc_conn_id: id of a connection of type ``remsvc``.
        stream_timeout: seconds for all commands together.
        metadata: call metadata beside the connection's token.
        sealed_metadata: the secret part of it, encrypted.
        sealed_commands: the commands as they are, and the secrets in them, encrypted; ``commands`` has them
            masked then.
        options: for durable jobs; each may be left out:

            - ``origin``: the try of the task, as :meth:`Origin.arguments` gives it. Version 1.0.0 did
              not store it: then it is derived from the task instance that Airflow gives the trigger.
              Without either, commands go over a stream of version 1.
            - ``deferred_at``: when the task was deferred, in seconds since the epoch.
            - ``execution_timeout``: seconds from then on, after which the task fails and may be retried.
            - ``max_output_bytes``, ``skip_on_exit_code``, ``parallel``, ``durable``, ``on_kill``,
              ``max_log_bytes``, ``log_drain``: as for the operator.
            - ``secrets``: texts to mask in the log and in the results, besides the connection's.
    """

    def __init__(
        self,
        *,
        commands: list[dict[str, Any]],
        grpc_conn_id: str = "remsvc_default",
        stream_timeout: float = 3600.0,
        metadata: Sequence[tuple[str, str]] | None = None,
        sealed_metadata: str | None = None,
        sealed_commands: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if unknown := options.keys() - _DEFAULTS.keys():
            raise TypeError(f"unexpected arguments of a RemSvcTrigger: {', '.join(sorted(unknown))}")
        self.commands = commands
        self.grpc_conn_id = grpc_conn_id
        self.stream_timeout = stream_timeout
        try:
            self.metadata, self._secret_metadata = sealing.split(metadata or ())
            self._masking = Masking(options.get("secrets") or ())
        except (ValueError, AttributeError) as error:
            # A triggerer goes on after a TypeError; after any other error it ends, with all its triggers.
            raise TypeError("unusable metadata or secrets of a RemSvcTrigger") from error
        self._sealed_metadata = sealed_metadata
        self._sealed_commands = sealed_commands
        self._options: dict[str, Any] = {**_DEFAULTS, **options}
        self._context: Context | None = None
        self._run: PlanRun | None = None
        self._fired = False
        self._cancelled = False
        self._kill_seen = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that Airflow stores. They hold no token.

        Raises:
            AirflowException: ``metadata`` holds a token, and Airflow has no key to encrypt it.
        """
        arguments: dict[str, Any] = {
            "commands": self.commands,
            "grpc_conn_id": self.grpc_conn_id,
            "stream_timeout": self.stream_timeout,
            "metadata": self.metadata,
        }
        if self._secret_metadata:
            self._sealed_metadata = sealing.seal(_METADATA, self._secret_metadata)
        if self._sealed_metadata:
            arguments["sealed_metadata"] = self._sealed_metadata
        arguments.update((name, value) for name, value in self._options.items() if value != _DEFAULTS[name])
        if (secrets := arguments.get("secrets")) and sealing.can_seal():
            self._sealed_commands = sealing.seal(_COMMANDS, [self.commands, secrets])
        if self._sealed_commands:
            arguments["sealed_commands"] = self._sealed_commands
            arguments["commands"] = [self._masking.command(command) for command in self.commands]
            arguments.pop("secrets", None)
        return "remsvc_provider.triggers.remsvc.RemSvcTrigger", arguments

    def __repr__(self) -> str:
        return f"<RemSvcTrigger of {len(self.commands)} command(s) on {self.grpc_conn_id}>"

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Keep the context, and render nothing: a worker has done so. Airflow calls this where the task may
        also be started by a trigger, as :mod:`remsvc_provider.triggers.start` does."""
        self._context = context

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the commands and yield one event.

        Cancelled, it leaves jobs alone: :meth:`on_kill` or :meth:`cleanup` ends them, where that is
        right. A command of a version 1 stream is ended by the server then.
        """
        try:
            payload = await self._payload()
        except asyncio.CancelledError:
            self._cancelled = True
            raise
        from remsvc_provider.triggers.event import OutcomeEvent

        self._fired = True
        yield OutcomeEvent(payload=payload)

    async def _payload(self) -> dict[str, Any]:
        """Of the event."""
        payload = (await self._outcome()).payload()
        await self._keep_back()
        return payload

    async def _keep_back(self) -> None:
        """Wait until the scheduler knows that the worker which has deferred the task has ended.

        When that worker ends, the executor tells the scheduler, which takes it in once in each of its rounds.
        If our event has the task queued again by then, the scheduler takes the old end for the end of the
        resumed task, and fails a task whose command succeeded. It happens to commands that end at once, while
        the scheduler is slow or pauses between two rounds (docs/decisions/0022). Outside of a triggerer there
        is no such scheduler (``dag.test()``), so nothing is waited for.
        """
        deferred_at = self._options["deferred_at"]
        if deferred_at is None or not in_triggerer():
            return
        resume_after = RESUME_AFTER.read_or(RESUME_AFTER.default)
        # However wrong one of the clocks is, an event is not kept back for longer than that.
        await asyncio.sleep(min(resume_after, deferred_at + resume_after - time.time()))

    async def on_kill(self) -> None:
        """Cancel the jobs, unless somebody still waits for them. Airflow 3.3 and later call it when the
        task was marked or cleared, and also when the trigger was moved to another triggerer."""
        self._kill_seen = True
        if await self._cancel_jobs("the Airflow task was killed or cleared", KILL_ANSWER_TIMEOUT) is None:
            self.log.warning("Airflow does not tell whether the task was killed: its commands are left alone")

    async def cleanup(self) -> None:
        """Release what is held here, after :meth:`run` has ended in whatever way.

        Airflow before 3.3 tells a trigger about a kill in no other way, and no version about a
        deferral that has timed out.
        """
        try:
            if self._cancelled and not self._kill_seen and (self._timed_out or not AIRFLOW_TELLS_KILLS):
                await self._cancel_jobs("the Airflow task was killed, cleared or timed out", ANSWER_TIMEOUT)
        finally:
            run, self._run = self._run, None
            if run is not None:
                await run.close()

    async def _cancel_jobs(self, reason: str, timeout: float) -> bool | None:
        """Whether it did; None where the task's state could not be learned within ``timeout`` seconds."""
        if self._fired or self._options["on_kill"] != "cancel":
            return False
        if self.task_instance is None:
            return None
        durable = self._options["durable"]
        date = (self._context or {}).get("logical_date")
        abandoned = await is_abandoned(
            self.task_instance, durable=durable, timeout=timeout, logical_date=date
        )
        if abandoned:
            if self._run is None:
                # Cut off before it began; but it may have begun before, in another triggerer.
                self._run = await self._prepare()
            await self._run.cancel(reason)
        return abandoned

    @property
    def _deferred_until(self) -> datetime | None:
        """Until when Airflow lets the task be deferred; None: for ever."""
        until: datetime | None = getattr(self, "timeout_after", None)
        return until.replace(tzinfo=timezone.utc) if until is not None and until.tzinfo is None else until

    @property
    def _timed_out(self) -> bool:
        until = self._deferred_until
        return until is not None and until < datetime.now(timezone.utc)

    async def _outcome(self) -> Outcome:
        try:
            self._run = await self._prepare()
        except (AirflowException, RemSvcError) as error:
            return Outcome(RunState.FAILED, {}, self._masking(str(error)))
        try:
            with (limit := TimeLimit(self._execution_time_left())):
                return await self._run.outcome(limit)
        except TimeoutError:
            return await self._too_late(self._run)

    def _execution_time_left(self) -> float | None:
        """Seconds; None where there is no limit."""
        limit: float | None = self._options["execution_timeout"]
        if limit is None:
            return None
        return limit - (time.time() - (self._options["deferred_at"] or time.time()))

    async def _too_late(self, run: PlanRun) -> Outcome:
        problem = f"execution_timeout of {self._options['execution_timeout']:g} s exceeded"
        if self._options["on_kill"] != "cancel":
            problem += ", what runs goes on (on_kill is 'leave')"
        elif self._a_retry_takes_over:
            problem += ", what runs is left to the next try (durable)"
        else:
            problem += f", {await run.cancel(problem)}"
        self.log.error(problem)
        return Outcome(RunState.FAILED, {}, problem)

    @property
    def _a_retry_takes_over(self) -> bool:
        """Whether what runs is left to the task's next try."""
        return bool(self._options["durable"] and not (self._options["origin"] or {}).get("last_try"))

    async def _prepare(self) -> PlanRun:
        """Raises :class:`AirflowException` or :class:`RemSvcError` for a connection that cannot be used."""
        module = await _load()
        options = await self._read_connection(self._options["deferred_at"])
        metadata = [*self.metadata, *self._secret_metadata]
        if self._sealed_metadata:
            metadata += sealing.pairs(sealing.unseal(_METADATA, self._sealed_metadata))
        commands = self.commands
        if self._sealed_commands:
            commands, secrets = sealing.unseal(_COMMANDS, self._sealed_commands)
            self._masking.add(secrets)
        plan = self._plan(commands, metadata)
        run: PlanRun = module.PlanRun(plan, options, self._read_connection, self.log, self._masking)
        return run

    async def _read_connection(self, since: float | None = None) -> ConnectionOptions:
        """As it is now, or was at some time after ``since``."""
        from remsvc_provider.hooks.remsvc import RemSvcHook

        hook = RemSvcHook(self.grpc_conn_id)
        await hook.get_async_conn(since)
        self._masking.add(hook.secrets)
        return hook.options

    def _plan(self, commands: list[dict[str, Any]], metadata: Sequence[tuple[str, str]]) -> Plan:
        from remsvc_provider.plan import OUTCOME_MARGIN, Plan

        options = dict(self._options)
        stored, deferred_at = options.pop("origin"), options.pop("deferred_at")
        del options["execution_timeout"], options["secrets"]
        if (left := self._execution_time_left()) is not None:
            options["time_is_up"] = time.monotonic() + left
        if (until := self._deferred_until) is not None:
            options["outcome_by"] = time.monotonic() + until.timestamp() - time.time() - OUTCOME_MARGIN
        origin = Origin.from_arguments(stored) if stored else None
        if origin is None and self.task_instance is not None:
            # Stored by 1.0.0, which knew no other keys and let any pass.
            commands = [{key: command.get(key) or "" for key in KEYS} for command in commands]
            origin = Origin.of(self.task_instance)
        return Plan(
            commands=commands,
            stream_timeout=self.stream_timeout,
            metadata=metadata,
            origin=origin,
            resumed=deferred_at is not None and time.time() - deferred_at > RESUMED_AFTER,
            **options,
        )


_loaded: list[ModuleType] = []


async def _load() -> ModuleType:
    """What runs commands. Loading it may take seconds where the disk is cold: not in the event loop that all
    triggers share. Once it is there, no thread is asked for: all may be busy with others' logs."""
    if not _loaded:
        _loaded.append(await asyncio.to_thread(import_module, "remsvc_provider.running.run"))
    return _loaded[0]
