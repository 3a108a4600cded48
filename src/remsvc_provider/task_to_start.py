"""What a triggerer has to know of a task to start it without a worker: the hand-over from a DAG's file.

The scheduler takes it from the serialized DAG and stores it with the trigger, as one JSON text: Airflow
encodes other arguments more than once, and decodes them in part.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

from remsvc_provider.plan import RunOptions

TRIGGER = "remsvc_provider.triggers.start.RemSvcStartTrigger"
"""The class of the trigger that starts the task: Airflow stores this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFields:
    """The operator's parameters that may have templates: not rendered and unchecked, or rendered."""

    commands: Any
    grpc_conn_id: Any
    metadata: Any
    env: Any
    cwd: Any

    def by_name(self) -> dict[str, Any]:
        """All of them by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskToStart:
    """A task as its DAG's file has it.

    Attributes:
        fields: what may have templates, not rendered.
        stream_timeout: seconds for all commands together, unchecked.
        execution_timeout: seconds that Airflow gives the task; None: no limit.
        longest_deferral: seconds after which Airflow ends the deferral.
        options: how to run the commands, unchecked.
        native: whether a template may give something other than text.
        reads_secrets: whether a template reads a Variable or a connection.
    """

    fields: TemplateFields
    stream_timeout: float
    execution_timeout: float | None
    longest_deferral: float
    options: RunOptions
    native: bool
    reads_secrets: bool = False

    def by_name(self) -> dict[str, Any]:
        """All of it as JSON has it, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "fields": self.fields.by_name(), "options": self.options.by_name()}

    def to_json(self) -> str:
        """The text that :meth:`from_json` reads."""
        return json.dumps(self.by_name())

    @classmethod
    def from_json(cls, text: str) -> TaskToStart:
        """Read what this version or another one has stored; what a later one adds is left out. But no
        parameter of the task is: a task that has one which is unknown here cannot be run to its effect.

        Raises:
            ValueError: it is not JSON.
            TypeError: something is missing, or is unknown among the task's parameters.
        """
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in known}
        values["fields"] = TemplateFields(**values.get("fields", {}))
        values["options"] = RunOptions(**values.get("options", {}))
        return cls(**values)

    def for_a_kill(self) -> TaskToStart:
        """The task with only those fields that may have to be rendered to end its jobs.

        These are found by their request ids, which are numbered as the commands are. A command may take long
        to render, or fail to.
        """
        commands = self.fields.commands
        if isinstance(commands, list):
            commands = [{"cmd": "true"}] * len(commands)
        return replace(self, fields=replace(self.fields, commands=commands, env=None, cwd=None))
