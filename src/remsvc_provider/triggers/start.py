"""The trigger with which a task starts in the triggerer, where no worker has seen it before.

The scheduler makes it of what the DAG file says. So this trigger does what a worker does before it defers a
task: it renders templates, checks parameters and finds secrets. If any of that goes wrong, the trigger
hands the task over to a worker, which starts it like any other task and reports the error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from remsvc_provider.masking import secrets_in
from remsvc_provider.origin import Origin
from remsvc_provider.outcome import EVT_ERROR, EVT_RESULTS, EVT_STATE, EVT_TRY, NOT_STARTED
from remsvc_provider.parameters import checked_plan
from remsvc_provider.task_to_start import TRIGGER, TaskToStart, TemplateFields
from remsvc_provider.templates.rendering import render_field
from remsvc_provider.templates.threads import in_thread
from remsvc_provider.triggers.remsvc import RemSvcTrigger
from remsvc_provider.version_compat import AirflowException, template_environment

if TYPE_CHECKING:
    from airflow.sdk import Context

RENDER_TIMEOUT = 60.0
"""Seconds. The first value that a triggerer asks Airflow for may take ten: it builds an API server first."""
KILL_RENDER_TIMEOUT = 8.0
"""The same when the task was killed, the wait for its turn included: with the question whether it was, this
fits into the 30 seconds that Airflow gives ``on_kill()`` by default."""


class RemSvcStartTrigger(RemSvcTrigger):
    """Starts a task, and runs its commands as :class:`RemSvcTrigger` does.

    The event's payload also has the try's number. Where the task was not started, its state is
    ``"NOT_STARTED"``, and ``"error_msg"`` says why.

    Args:
        parameters: the task, as :meth:`TaskToStart.to_json` gives it.
    """

    def __init__(self, *, parameters: str) -> None:
        super().__init__(commands=[])
        # Read by _start(): an error here would end the triggerer, and each that takes the trigger over.
        self._parameters = parameters
        self._started = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path, and the argument as it was given."""
        return TRIGGER, {"parameters": self._parameters}

    async def _payload(self) -> dict[str, Any]:
        """Start the task and run its commands, or hand it over to a worker."""
        try:
            await self._start()
        except Exception as error:  # noqa: BLE001  templates, and what they call, may raise anything
            reason = self._reason(error)
            self.log.info(f"A worker starts this task: {reason}")
            payload: dict[str, Any] = {EVT_STATE: NOT_STARTED, EVT_RESULTS: {}, EVT_ERROR: reason}
        else:
            payload = await super()._payload()
        ti = self.task_instance
        return payload if ti is None else {**payload, EVT_TRY: ti.try_number}

    async def _keep_back(self) -> None:
        """Nothing: no worker has deferred the task."""

    async def _cancel_jobs(self, reason: str, timeout: float) -> bool | None:
        try:
            await self._start(killed=True)
        except Exception as error:  # noqa: BLE001  as above
            self.log.info(
                "Nothing was started here; what another triggerer may have started ends by its time limit: "
                f"{self._reason(error)}"
            )
            return False
        return await super()._cancel_jobs(reason, timeout)

    async def _start(self, *, killed: bool = False) -> None:
        """Do what a worker does with a task that it defers; for a kill, only what ends its jobs."""
        if self._started:
            return
        task = TaskToStart.from_json(self._parameters)
        context = self._context
        if context is None:
            raise AirflowException(
                "the DAG has changed since the task was deferred, so its templates cannot be rendered here"
            )
        if context["ti"].try_number > 1:
            # A triggerer is told neither how many tries the task may have, nor whether it was cleared.
            raise AirflowException(
                "it is a retry, and only workers are told what earlier tries may have left running"
            )
        if killed:
            task = task.for_a_kill()
        rendered = await in_thread(
            lambda: self._rendered(task, context),
            KILL_RENDER_TIMEOUT if killed else RENDER_TIMEOUT,
            urgent=killed,
        )
        plan = checked_plan(
            commands=rendered.commands,
            env=rendered.env,
            cwd=rendered.cwd,
            metadata=rendered.metadata,
            stream_timeout=task.stream_timeout,
            options=task.options,
            known_secrets=task.reads_secrets,
        )
        self.grpc_conn_id = rendered.grpc_conn_id
        self._masking.add(plan.secrets)
        self.plan = replace(
            plan,
            origin=Origin.of_first_try(context),
            execution_timeout=task.execution_timeout,
            deferred_at=self._deferred_at(task.longest_deferral),
        )
        self._started = not killed

    def _rendered(self, task: TaskToStart, context: Context) -> TemplateFields:
        self.render_template_as_native_obj = task.native
        environment = template_environment(native=task.native)

        def render(value: Any) -> Any:
            return self.render_template(value, context, environment)

        given = task.fields.by_name()
        return TemplateFields(
            **{name: render_field(name, value, render) if value else value for name, value in given.items()}
        )

    def _deferred_at(self, longest_deferral: float) -> float | None:
        """When the scheduler deferred the task, in seconds since the epoch: Airflow tells until when it may
        be deferred at most."""
        until = self._deferred_until
        return None if until is None else until.timestamp() - longest_deferral

    def _reason(self, error: Exception) -> str:
        """The error for a person, without the secrets that templates may have put into it."""
        text = str(error) if isinstance(error, AirflowException) else f"{type(error).__name__}: {error}"
        self._masking.add(secrets_in(text))
        return self._masking(text)
