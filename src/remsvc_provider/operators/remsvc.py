"""The operator: runs commands on another machine through its RemSvc server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator

from remsvc.command import crc32hex
from remsvc_provider import prompt_exit, sealing
from remsvc_provider.masking import Masking
from remsvc_provider.metadata import CallMetadata, check_metadata, hidden, split
from remsvc_provider.outcome import (
    EVT_ERROR,
    EVT_RESULTS,
    EVT_STATE,
    EVT_TRY,
    NOT_STARTED,
    RemSvcResult,
    RunState,
)
from remsvc_provider.parameters import FIELDS, check_choice, checked_plan
from remsvc_provider.plan import DEFAULT_OPTIONS, Plan, RunOptions, RunTimes
from remsvc_provider.settings import default_deferrable
from remsvc_provider.start_attributes import StartArguments, StartFromTrigger
from remsvc_provider.templates.rendering import render_field
from remsvc_provider.version_compat import AirflowException, AirflowFailException, AirflowSkipException

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from remsvc.client.options import ConnectionOptions
    from remsvc_provider.outcome import Outcome

__all__ = ["JobState", "RemSvcOperator", "RemSvcResult", "crc32hex"]

JobState = RunState
"""The name that DAGs import it by."""

ResultsAsStored = dict[int, dict[str, Any]]
"""Results by ``tid``, as they have come through the database: ``{"tid", "rc", "out", "err", "hsh", "cmd"}``
each."""

TIMEOUT_MARGIN = timedelta(seconds=60)
"""For the trigger to see that execution_timeout has passed, and to end the commands; or to keep back the
event of a command that was faster, for ``[remsvc] resume_after`` seconds, at most 30."""

_START_FROM_TRIGGER_CHOICES = (True, False, None)


def _sorted_by_tid(results: ResultsAsStored) -> list[dict[str, Any]]:
    return [results[tid] for tid in sorted(results)]


def _delete_result(task_instance: Any) -> None:
    """Delete what an earlier try has pushed, as Airflow does when a worker starts a task that was cleared: it
    takes this one for a task that is resumed."""
    from airflow.sdk.execution_time.xcom import XCom

    ti = task_instance
    result = {
        "key": "return_value",
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "map_index": ti.map_index,
    }
    if XCom.get_one(**result) is not None:
        XCom.delete(**result)


class RemSvcOperator(BaseOperator):
    """Runs commands one after another on a RemSvc server, and fails if one of them does.

    While they run the task is deferred and holds no worker slot, and their output appears in its log.
    Each runs at most once, whatever becomes of triggerers and connections meanwhile, where the server has
    durable jobs. XCom ``return_value``::

        {"state": "SUCCESS", "results": [{"tid", "rc", "out", "err", "hsh", "cmd"}, ...], "error_msg": None}

    Args:
        commands: a list of dicts: ``cmd`` (text), and optionally ``cmdtyp`` (0 the system's shell, 1
            PowerShell), ``cmdusr`` (the user to run as, POSIX) and ``src`` (for the server's log); with
            durable jobs also ``argv`` (a program and its arguments, in place of ``cmd``), ``env``,
            ``cwd`` and ``input`` (text or bytes). Templated.
        grpc_conn_id: id of a connection of type ``remsvc``. Templated.
        stream_timeout: seconds for all commands together. When it runs out, what still runs is ended
            and the task fails without a retry.
        metadata: pairs of strings, sent along with the call. Templated. The connection's token wins
            over an ``authorization`` entry.
        result_handler: called with ``{tid: result}``; what it returns becomes the XCom's
            ``"results"``. Left out: the list sorted by ``tid``.
        deferrable: False runs the commands in the worker, for an Airflow without a triggerer. Left out:
            True, unless the environment has ``AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE``.
        start_from_trigger: True starts the task in the triggerer, with no worker, where Airflow (3.3 and
            later) and the task allow that to the same effect; False has a worker start it. Left out:
            ``[remsvc] start_from_trigger`` in airflow.cfg, which is True.
        env, cwd: for every command that does not set its own; a command's ``env`` is merged into it.
            Templated. (+)
        max_output_bytes: bytes of each output that go into the result; what follows is cut off.
        skip_on_exit_code: an exit code, or several, that skip the task instead of failing it.
        parallel: how many of the commands run side by side. (+)
        durable: a retry takes over what the try before has left running or has got done, instead of
            running it again. (+)
        on_kill: what becomes of the commands when the task is killed, cleared or timed out:
            ``"cancel"``, or ``"leave"`` (+).
        max_log_bytes: bytes of each output of a command that go into the task's log; of more, the
            beginning and the end do. Left out: what ``[remsvc] max_log_bytes`` in airflow.cfg says.
        log_drain: seconds for which a command that has ended waits until the log has all of its output;
            then the rest is left out, but for the end. Left out: ``[remsvc] log_drain``.

    What is marked (+) needs a server with durable jobs.

    Raises:
        AirflowException: from :meth:`execute`, for parameters that cannot be used and for commands
            that failed.
    """

    template_fields: Sequence[str] = FIELDS
    template_fields_renderers = {"commands": "json", "metadata": "json", "env": "json"}  # noqa: RUF012
    ui_color = "#d5e8d4"
    start_from_trigger = StartFromTrigger()
    start_trigger_args = StartArguments()

    def __init__(
        self,
        *,
        commands: list[dict[str, Any]],
        grpc_conn_id: str = "remsvc_default",
        stream_timeout: float = 3600.0,
        metadata: Sequence[tuple[str, str]] | None = None,
        result_handler: Callable[[ResultsAsStored], Any] | None = None,
        deferrable: bool | None = None,
        start_from_trigger: bool | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output_bytes: int = DEFAULT_OPTIONS.max_output_bytes,
        skip_on_exit_code: int | Sequence[int] | None = None,
        parallel: int = 1,
        durable: bool = False,
        on_kill: str = "cancel",
        max_log_bytes: int | None = None,
        log_drain: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.commands = commands
        self.grpc_conn_id = grpc_conn_id
        self.stream_timeout = stream_timeout
        self.metadata = metadata
        self.result_handler = result_handler or _sorted_by_tid
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.env = env
        self.cwd = cwd
        self.max_output_bytes = max_output_bytes
        self.skip_on_exit_code = skip_on_exit_code
        self.parallel = parallel
        self.durable = durable
        self.when_killed = on_kill  # on_kill is Airflow's name for a method
        self.max_log_bytes = max_log_bytes
        self.log_drain = log_drain
        self._hidden_metadata: CallMetadata = []
        self._rendering: str | None = None
        self._cancel: Callable[[], object] | None = None
        self.start_from_trigger = start_from_trigger

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """As in Airflow: a mapped task, which is always started by a worker.

        Airflow takes ``start_from_trigger`` from here for its own, unasked whether such a task can be started
        so: the triggerer would make a context for each, and end where one cannot be made.

        Raises:
            AirflowException: ``start_from_trigger`` is none of True, False and None.
        """
        check_choice("start_from_trigger", kwargs.get("start_from_trigger"), _START_FROM_TRIGGER_CHOICES)
        made = super().partial(**kwargs)
        made.kwargs.pop("start_from_trigger", None)
        return made

    def _validate_start_from_trigger_kwargs(self) -> None:
        """Skip Airflow's look for callables in the trigger's arguments (3.3): they are one JSON text, and
        asking for them here would judge all templates once more."""

    @property
    def run_options(self) -> RunOptions:
        """How the commands are to be run, unchecked: what has no templates."""
        names = {option.name for option in fields(RunOptions)} - {"on_kill"}
        others: dict[str, Any] = {name: getattr(self, name) for name in names}
        return RunOptions(on_kill=self.when_killed, **others)

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        # The hook that Airflow offers for changing how fields are rendered, mapped tasks included.
        for name in template_fields:
            self._rendering = name if parent is self else None
            super()._do_render_template_fields(parent, (name,), context, jinja_env, seen_oids)
        self._rendering = None
        if parent is self and "metadata" in template_fields:
            self._hide_secrets()

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a field, or any other value, as Airflow does; of a field, text stays the text it is."""
        name, self._rendering = self._rendering, None
        render = super().render_template
        if name is None:
            return render(content, context, jinja_env, seen_oids)
        return render_field(name, content, lambda value: render(value, context, jinja_env, seen_oids))

    def _hide_secrets(self) -> None:
        """Take credentials out of the field that the rendered template view shows."""
        metadata = check_metadata(self.metadata)
        _, self._hidden_metadata = split(metadata)
        self.metadata = hidden(metadata)

    def _whole_metadata(self) -> Sequence[tuple[str, str]] | None:
        """The field with the credentials that were taken out of it."""
        if not self._hidden_metadata:
            return self.metadata
        public, _ = split(check_metadata(self.metadata))
        return public + self._hidden_metadata

    def execute(self, context: Context) -> Any:
        """Check the parameters, and defer to the trigger (or run the commands here)."""
        prompt_exit.ensure()
        # Here, and not above: neither whoever reads the DAG file nor the worker that resumes needs it.
        from remsvc_provider.origin import Origin

        check_choice("deferrable", self.deferrable, (True, False))
        check_choice("start_from_trigger", self.__dict__["start_from_trigger"], _START_FROM_TRIGGER_CHOICES)
        plan = checked_plan(
            commands=self.commands,
            env=self.env,
            cwd=self.cwd,
            metadata=self._whole_metadata(),
            stream_timeout=self.stream_timeout,
            options=self.run_options,
        )
        limit = self.execution_timeout
        task_instance = context.get("ti")
        plan = replace(
            plan,
            origin=None if task_instance is None else Origin.of(task_instance, context),
            execution_timeout=None if limit is None else limit.total_seconds(),
        )
        if self.deferrable and self._may_store(plan.metadata):
            self._defer(plan)
        return self.execute_complete(context, self._run_here(plan).payload())

    def _defer(self, plan: Plan) -> NoReturn:
        from remsvc_provider.triggers.remsvc import RemSvcTrigger

        self.log.info(f"Deferring {len(plan.commands)} command(s) to the triggerer")
        if plan.origin is not None or plan.execution_timeout is not None:
            plan = replace(plan, deferred_at=time.time())
        limit = self.execution_timeout
        self.defer(
            trigger=RemSvcTrigger.of(plan, self.grpc_conn_id),
            method_name="execute_complete",
            kwargs={"try_number": plan.origin.try_number} if plan.origin is not None else None,
            # The trigger keeps to execution_timeout. This is for when no triggerer is there: all that
            # Airflow 3.1.0 does with a retry after such a time-out is to fail it as well.
            timeout=None if limit is None else limit + TIMEOUT_MARGIN,
        )

    def execute_complete(self, context: Context, event: dict[str, Any], try_number: int | None = None) -> Any:
        """Take the trigger's event.

        Args:
            context: of the task.
            event: the trigger's.
            try_number: of the try that was deferred, where that is known.

        Returns:
            The XCom value.

        Raises:
            AirflowException: a command failed or was not answered, or the server could not be used.
            AirflowFailException: ``stream_timeout`` ran out: the task is not retried.
            AirflowSkipException: a command ended with a code of ``skip_on_exit_code``, and none failed.
        """
        prompt_exit.ensure()
        if not isinstance(event, Mapping) or EVT_STATE not in event:
            raise AirflowException(f"not an event of a RemSvcTrigger: it has no {EVT_STATE!r}")
        state = event[EVT_STATE]
        task_instance = context.get("ti")
        number = event.get(EVT_TRY, try_number)
        if task_instance is not None and number not in (None, task_instance.try_number):
            # Airflow 3.1.0 resumes a retry in the place where the try before it failed.
            self.log.info(f"This is the event of try {number}: the commands run again")
            return self.execute(context)
        if state == NOT_STARTED:
            self.log.info(f"A worker starts this task: {event.get(EVT_ERROR)}")
            if task_instance is not None and task_instance.try_number > 1:
                _delete_result(task_instance)
            return self.execute(context)
        if state != RunState.SUCCESS.value:
            # Version 1.0.0 called the key "error": a task may be resumed after an upgrade.
            error = event.get(EVT_ERROR) or event.get("error")
            text = f"RemSvc commands ended with state {state}: {error}"
            raise AirflowFailException(text) if state == RunState.CANCELLED.value else AirflowException(text)
        # An event travels as JSON, where keys become text and "10" sorts before "2".
        results = {int(tid): result for tid, result in (event.get(EVT_RESULTS) or {}).items()}
        if skipping := [
            f"command {tid} with {results[tid]['rc']}" for tid in sorted(results) if results[tid]["rc"]
        ]:
            raise AirflowSkipException(f"skipped by exit code: {', '.join(skipping)}")
        return RemSvcResult(state=state, results=self.result_handler(results)).to_dict()

    def on_kill(self) -> None:
        """Cancel the commands that this worker runs (with ``deferrable=False``)."""
        if self._cancel is not None:
            self._cancel()

    def _may_store(self, metadata: CallMetadata) -> bool:
        """Whether the trigger's arguments can be stored without showing a token."""
        if not split(metadata)[1] or sealing.can_seal():
            return True
        self.log.warning(
            "metadata has an authorization entry, and Airflow has no [core] fernet_key to encrypt it for the "
            "triggerer: the commands run in this worker. Put the token into the connection's bearer_token"
        )
        return False

    def _run_here(self, plan: Plan) -> Outcome:
        from remsvc_provider.hooks.remsvc import RemSvcHook
        from remsvc_provider.origin import Origin
        from remsvc_provider.running.run import PlanRun

        masking = Masking(plan.secrets)
        plan = replace(plan, origin=plan.origin or Origin.unknown())
        limit = plan.execution_timeout
        times = RunTimes.of(plan, None if limit is None else time.time() + limit)

        def read_connection() -> ConnectionOptions:
            hook = RemSvcHook(self.grpc_conn_id)
            options = hook.options
            masking.add(hook.secrets)
            return options

        options = read_connection()

        async def run() -> Outcome:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            if task is not None:  # in a coroutine there always is one
                self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            reread = partial(asyncio.to_thread, read_connection)
            commands = PlanRun(plan, times, options, reread, self.log, masking, alone=True)
            try:
                return await commands.outcome()
            except asyncio.CancelledError:
                if plan.options.on_kill == "cancel":
                    await commands.cancel("the Airflow task was killed or timed out")
                raise
            finally:
                self._cancel = None
                await commands.close()

        try:
            return asyncio.run(run())
        except asyncio.CancelledError:
            raise AirflowException("the task was killed: its commands were cancelled") from None
