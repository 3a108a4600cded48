"""Decides which tasks a triggerer starts without a worker: those that it starts to the very same effect.

Airflow 3.3 and later can defer such a task as soon as its turn has come, with no worker. What its trigger is
made of comes from the serialized DAG. So Airflow asks for it while the DAG file is read, when no template can
be rendered yet: the triggerer renders them. Whatever does not fit into that is left to a worker.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import jinja2

from remsvc_provider.masking import secrets_in
from remsvc_provider.metadata import is_secret
from remsvc_provider.parameters import FIELDS
from remsvc_provider.settings import START_FROM_TRIGGER
from remsvc_provider.task_to_start import TaskToStart, TemplateFields
from remsvc_provider.templates.rendering import renders_natively
from remsvc_provider.templates.steady import is_reference, is_steady, is_template, reads_secrets
from remsvc_provider.version_compat import conf, names_a_secret

if TYPE_CHECKING:
    from airflow.sdk import DAG, BaseOperator

    from remsvc_provider.plan import RunOptions

HORIZON = timedelta(days=1000)
"""How long such a task may be deferred, where it has no execution_timeout: its trigger is told no other time
from which it could know when it was deferred. Some databases know no time after 2038."""
LONGEST_TIMEOUT = HORIZON / 3
"""The largest stream_timeout of such a task: waiting for the server and running, both may take it, before the
horizon."""
MOST_TASKS = 200
"""Of a DAG. For each trigger that starts a task, the triggerer reads all of its DAG, in the event loop that
all triggers share."""
MOST_CHARACTERS = 16_384
"""Of a task's parameters, as JSON, of which the triggerer reads those of the whole DAG."""

_POOL = "default_pool"
_NOT_STORED = re.compile(r"[\0\ud800-\udfff]")
_STARTING = (
    "execute",
    "defer",
    "pre_execute",
    "prepare_template",
    "resolve_template_files",
    "get_template_env",
    "render_template",
    "render_template_fields",
    "_do_render_template_fields",
)
"""What a worker calls to start a task: a subclass that has another one is started by a worker."""


class StartableTask(Protocol):
    """What an operator has, beside what every operator of Airflow has, to be started in the triggerer."""

    stream_timeout: float
    deferrable: bool

    @property
    def run_options(self) -> RunOptions: ...


def trigger_parameters(task: StartableTask, operator: type[StartableTask]) -> str | None:
    """What the trigger has to know of the task, as JSON, or None where only a worker can start the task.

    Args:
        task: of the operator, or of a subclass.
        operator: the operator itself.
    """
    wanted = task.__dict__["start_from_trigger"]
    if wanted is None:
        # An option that only saves time: it lets no DAG file fail.
        wanted = START_FROM_TRIGGER.read_or(False)
    operator_task = cast("BaseOperator", task)
    dag = operator_task.get_dag()
    # What is neither true nor false, a worker refuses.
    if (
        wanted not in (True,)
        or dag is None
        or not _airflow_can()
        or task.deferrable not in (True,)
        or not _starts_alike(operator_task, operator, dag)
    ):
        return None
    limit = operator_task.execution_timeout
    if not _ends_before_horizon(task.stream_timeout) or (limit is not None and limit <= timedelta(0)):
        return None
    found = TaskToStart(
        fields=TemplateFields(**{name: getattr(task, name) for name in FIELDS}),
        stream_timeout=task.stream_timeout,
        execution_timeout=None if limit is None else limit.total_seconds(),
        longest_deferral=min(HORIZON, limit or HORIZON).total_seconds(),
        options=task.run_options,
        native=renders_natively(task),
    )
    if not _is_json(found.by_name()) or len(text := found.to_json()) > MOST_CHARACTERS:
        return None
    return _with_templates_judged(text)


@lru_cache(maxsize=1)  # Airflow asks four times in a row for each task, whenever it reads the DAG's file
def _with_templates_judged(parameters: str) -> str | None:
    """The parameters, and whether their templates read secrets; None where only a worker can render them."""
    found = TaskToStart.from_json(parameters)
    texts = list(_texts(found.fields.by_name()))
    if not _is_public(found.fields) or not all(map(is_steady, texts)):
        return None
    return replace(found, reads_secrets=any(map(reads_secrets, texts))).to_json()


def _airflow_can() -> bool:
    from airflow.triggers.base import BaseTrigger

    # A triggerer that serves a queue of its own is not given what the scheduler defers.
    return hasattr(BaseTrigger, "render_template_fields") and not conf.getboolean(
        "triggerer", "queues_enabled", fallback=False
    )


def _starts_alike(task: BaseOperator, operator: type[StartableTask], dag: DAG) -> bool:
    """Whether a worker would do nothing else, and not at another time."""
    changed = any(getattr(type(task), name) is not getattr(operator, name) for name in _STARTING)
    return not (
        changed
        or tuple(task.template_fields) != FIELDS
        or task.template_ext
        # What is to happen before the task starts (the first: pre_execute=..., Airflow 3.1.0 to 3.3.2).
        or task._pre_execute_hook
        or task.on_execute_callback
        # What the scheduler looks at when it gives a task to a worker, and at no other time.
        or task.pool != _POOL
        or task.max_active_tis_per_dag
        or task.max_active_tis_per_dagrun
        # Where these are set, the triggerer (3.3.2) fails while it makes the context, and ends with all its
        # triggers.
        or task.inlets
        or task.outlets
        or not _are_plain(task.params)
        or not _are_plain(dag.params)
        or next(task.iter_mapped_task_groups(), None)
        # What the triggerer does not know of a DAG, and templates may need.
        or dag.user_defined_macros
        or dag.user_defined_filters
        or dag.jinja_environment_kwargs
        or renders_natively(task) != bool(dag.render_template_as_native_obj)
        or dag.template_undefined is not jinja2.StrictUndefined
        or len(dag.task_dict) > MOST_TASKS
    )


def _ends_before_horizon(stream_timeout: Any) -> bool:
    """What is no number, a worker refuses."""
    return type(stream_timeout) in (int, float) and stream_timeout <= LONGEST_TIMEOUT.total_seconds()


def _are_plain(params: Any) -> bool:
    """Whether every value fits: none has a schema, and none is left out."""
    found = [params.get_param(name) for name in params]
    return not any(param.schema or not param.has_value for param in found)


def _is_public(fields: TemplateFields) -> bool:
    """Whether no secret stands in them, rather than in a template: they are stored as they are.

    Only names tell that. Which values Airflow knows as secrets depends on what this process has read before:
    the serialized DAG would change with it, and that is a new version of the DAG each time.
    """
    pairs = fields.metadata or ()
    try:
        secret = [value for key, value in pairs if is_template(key) or is_secret(key) or names_a_secret(key)]
    except (TypeError, ValueError):
        return False  # nothing that can be used: a worker says so
    secret += secrets_in(list(fields.by_name().values()), known=False)
    # Rendered natively these become lists and dicts, with names that are not known before.
    secret += [text for text in _instead_of_dicts(fields) if isinstance(text, str)]
    return all(map(_is_taken_from_elsewhere, secret))


def _instead_of_dicts(fields: TemplateFields) -> Iterator[Any]:
    commands = fields.commands
    yield from (fields.env, commands)
    for command in commands if isinstance(commands, list) else ():
        yield command
        if isinstance(command, Mapping):
            yield command.get("env")


def _is_taken_from_elsewhere(value: object) -> bool:
    text = str(value).strip()
    scheme, _, credential = text.partition(" ")
    return is_reference(credential.strip() if scheme.lower() in ("bearer", "basic") else text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for element in value.values():
            yield from _texts(element)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from _texts(element)


def _is_json(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_text(key) and _is_json(element) for key, element in value.items())
    if kind in (list, tuple):
        return all(map(_is_json, value))
    if kind is str:
        return _is_text(value)
    return value is None or kind in (bool, int) or (kind is float and math.isfinite(value))


def _is_text(text: str) -> bool:
    """Whether a database can hold it: no NUL, no half of a character."""
    return _NOT_STORED.search(text) is None
