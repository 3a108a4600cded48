"""The trigger: runs the commands of a deferred task in the triggerer.

The worker that defers a task makes one too, only to have its arguments stored: what runs commands is loaded
by :meth:`RemSvcTrigger.run`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from remsvc.errors import RemSvcError
from remsvc.time_limit import TimeLimit
from remsvc_provider import sealing
from remsvc_provider.airflow_process import in_triggerer
from remsvc_provider.commands import JOB_KEYS, TaskCommand
from remsvc_provider.masking import Masking
from remsvc_provider.metadata import split
from remsvc_provider.origin import Origin
from remsvc_provider.outcome import EVT_ERROR, EVT_RESULTS, EVT_STATE, Outcome, RunState
from remsvc_provider.plan import DEFAULT_OPTIONS, Plan, RunOptions, RunTimes
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

    from remsvc.client.options import ConnectionOptions
    from remsvc_provider.running.run import PlanRun

__all__ = ["EVT_ERROR", "EVT_RESULTS", "EVT_STATE", "RemSvcTrigger"]

_METADATA, _COMMANDS = "the authorization entry of metadata", "what commands hold of secrets"


class OutcomeEvent(TriggerEvent):
    """The event by which the trigger tells how a run ended.

    Airflow logs each event for the task: this one leaves the output out, because it is in the log already.
    """

    def __repr__(self) -> str:
        return f"TriggerEvent<state {self.payload[EVT_STATE]}, {len(self.payload[EVT_RESULTS])} result(s)>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TriggerEvent) and bool(self.payload == other.payload)

    __hash__ = None  # type: ignore[assignment]


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
        origin: the try of the task, as :meth:`Origin.arguments` gives it. Version 1.0.0 did not store it:
            then it is derived from the task instance that Airflow gives the trigger. Without either, commands
            go over a stream of version 1.
        deferred_at: when the task was deferred, in seconds since the epoch.
        execution_timeout: seconds from then on, after which the task fails and may be retried.
        secrets: texts to mask in the log and in the results, besides the connection's.
        max_output_bytes, skip_on_exit_code, parallel, durable, on_kill, max_log_bytes, log_drain: as for the
            operator.
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
        origin: Mapping[str, Any] | None = None,
        deferred_at: float | None = None,
        execution_timeout: float | None = None,
        secrets: Sequence[str] = (),
        max_output_bytes: int = DEFAULT_OPTIONS.max_output_bytes,
        skip_on_exit_code: Sequence[int] = (),
        parallel: int = DEFAULT_OPTIONS.parallel,
        durable: bool = DEFAULT_OPTIONS.durable,
        on_kill: str = DEFAULT_OPTIONS.on_kill,
        max_log_bytes: int | None = None,
        log_drain: float | None = None,
    ) -> None:
        try:
            plan = Plan(
                commands=[TaskCommand.from_stored(command) for command in commands],
                stream_timeout=stream_timeout,
                metadata=[(key, value) for key, value in metadata or ()],
                secrets=list(secrets or ()),
                origin=Origin.from_arguments(origin) if origin else None,
                execution_timeout=execution_timeout,
                deferred_at=deferred_at,
                options=RunOptions(
                    max_output_bytes=max_output_bytes,
                    skip_on_exit_code=list(skip_on_exit_code),
                    parallel=parallel,
                    durable=durable,
                    on_kill=on_kill,
                    max_log_bytes=max_log_bytes,
                    log_drain=log_drain,
                ),
            )
            self._take(plan, grpc_conn_id, sealed_metadata, sealed_commands)
        except (ValueError, LookupError, AttributeError) as error:
            # A triggerer goes on after a TypeError; after any other error it ends, with all its triggers.
            raise TypeError("unusable arguments of a RemSvcTrigger") from error

    @classmethod
    def of(cls, plan: Plan, grpc_conn_id: str) -> RemSvcTrigger:
        """The trigger that runs a plan, by a connection: what a worker makes, for :meth:`serialize`."""
        trigger = cls.__new__(cls)
        trigger._take(plan, grpc_conn_id)
        return trigger

    def _take(
        self,
        plan: Plan,
        grpc_conn_id: str,
        sealed_metadata: str | None = None,
        sealed_commands: str | None = None,
    ) -> None:
        """Take what this trigger is to run, from stored arguments or from the worker that makes it."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.plan = plan
        self.grpc_conn_id = grpc_conn_id
        self._masking = Masking(plan.secrets)
        self._sealed_metadata = sealed_metadata
        self._sealed_commands = sealed_commands
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
        plan = self.plan
        public, secret = split(plan.metadata)
        commands = [command.stored() for command in plan.commands]
        arguments: dict[str, Any] = {
            "commands": commands,
            "grpc_conn_id": self.grpc_conn_id,
            "stream_timeout": plan.stream_timeout,
            "metadata": public,
        }
        if secret:
            self._sealed_metadata = sealing.seal(_METADATA, secret)
        if self._sealed_metadata:
            arguments["sealed_metadata"] = self._sealed_metadata
        if plan.origin is not None:
            arguments["origin"] = plan.origin.arguments()
        if plan.deferred_at is not None:
            arguments["deferred_at"] = plan.deferred_at
        if plan.execution_timeout is not None:
            arguments["execution_timeout"] = plan.execution_timeout
        arguments.update(plan.options.changed())
        if plan.secrets and sealing.can_seal():
            self._sealed_commands = sealing.seal(_COMMANDS, [commands, plan.secrets])
        elif plan.secrets:
            arguments["secrets"] = plan.secrets
        if self._sealed_commands:
            arguments["sealed_commands"] = self._sealed_commands
            arguments["commands"] = [self._masking.command(command) for command in commands]
        return "remsvc_provider.triggers.remsvc.RemSvcTrigger", arguments

    def __repr__(self) -> str:
        return f"<RemSvcTrigger of {len(self.plan.commands)} command(s) on {self.grpc_conn_id}>"

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Keep the context, and render nothing: a worker has rendered the task. Airflow calls this for a
        task that
        a trigger may also start: see :mod:`remsvc_provider.triggers.start`."""
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
        self._fired = True
        yield OutcomeEvent(payload=payload)

    async def _payload(self) -> dict[str, Any]:
        """The event's payload, when the time has come to fire it."""
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
        deferred_at = self.plan.deferred_at
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
        """Cancel the jobs if nobody waits for them any more.

        Args:
            reason: for people.
            timeout: seconds for Airflow to tell the task's state.

        Returns:
            Whether they were cancelled; None where the task's state could not be learned.
        """
        if self._fired or self.plan.options.on_kill != "cancel":
            return False
        if self.task_instance is None:
            return None
        durable = self.plan.options.durable
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
            with (limit := TimeLimit(self.plan.execution_time_left)):
                return await self._run.outcome(limit)
        except TimeoutError:
            return await self._too_late(self._run)

    async def _too_late(self, run: PlanRun) -> Outcome:
        problem = f"execution_timeout of {self.plan.execution_timeout:g} s exceeded"
        if self.plan.options.on_kill != "cancel":
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
        plan = self.plan
        return plan.options.durable and not (plan.origin is not None and plan.origin.last_try)

    async def _prepare(self) -> PlanRun:
        """Raises :class:`AirflowException` or :class:`RemSvcError` for a connection that cannot be used."""
        module = await _load()
        options = await self._read_connection(self.plan.deferred_at)
        plan = self._complete_plan()
        times = RunTimes.of(plan, None if self._deferred_until is None else self._deferred_until.timestamp())
        run: PlanRun = module.PlanRun(plan, times, options, self._read_connection, self.log, self._masking)
        return run

    async def _read_connection(self, since: float | None = None) -> ConnectionOptions:
        """As it is now, or was at some time after ``since``."""
        from remsvc_provider.hooks.remsvc import RemSvcHook

        hook = RemSvcHook(self.grpc_conn_id)
        await hook.get_async_conn(since)
        self._masking.add(hook.secrets)
        return hook.options

    def _complete_plan(self) -> Plan:
        """The plan with what is stored encrypted, and with its origin."""
        plan = self.plan
        if self._sealed_metadata and not split(plan.metadata)[1]:
            sealed = sealing.unseal(_METADATA, self._sealed_metadata)
            plan = replace(plan, metadata=plan.metadata + [(key, value) for key, value in sealed])
        if self._sealed_commands:
            commands, secrets = sealing.unseal(_COMMANDS, self._sealed_commands)
            self._masking.add(secrets)
            plan = replace(plan, commands=[TaskCommand.from_stored(command) for command in commands])
        if plan.origin is None and self.task_instance is not None:
            # Stored by 1.0.0, which knew no other keys and let any pass.
            known = [replace(command, **dict.fromkeys(JOB_KEYS)) for command in plan.commands]
            plan = replace(plan, commands=known, origin=Origin.of(self.task_instance))
        return plan


_loaded: list[ModuleType] = []


async def _load() -> ModuleType:
    """Load the module that runs commands, in a thread: it may take seconds where the disk is cold, and the
    event loop is shared by all triggers. Once it is loaded, no thread is needed, as all may be busy with
    logs."""
    if not _loaded:
        _loaded.append(await asyncio.to_thread(import_module, "remsvc_provider.running.run"))
    return _loaded[0]
