"""What a triggerer has to know of a task to start it without a worker: the hand-over from a DAG's file.

The scheduler takes it from the serialized DAG and stores it with the trigger, as one JSON text: Airflow
encodes other arguments more than once, and decodes them in part.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

TRIGGER = "remsvc_provider.triggers.start.RemSvcStartTrigger"
"""The class of the trigger that starts the task: Airflow stores this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskToStart:
    """A task as its DAG's file has it.

    Attributes:
        fields: what may have templates, by name, not rendered.
        stream_timeout: seconds for all commands together, unchecked.
        execution_timeout: seconds that Airflow gives the task; None: no limit.
        longest_deferral: seconds after which Airflow ends the deferral.
        options: how to run the commands, unchecked: see :class:`~remsvc_provider.plan.RunOptions`.
        native: whether a template may give something other than text.
        reads_secrets: whether a template reads a Variable or a connection.
    """

    fields: Mapping[str, Any]
    stream_timeout: float
    execution_timeout: float | None
    longest_deferral: float
    options: Mapping[str, Any]
    native: bool
    reads_secrets: bool = False

    def values(self) -> dict[str, Any]:
        """The attributes by their names."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def to_json(self) -> str:
        """The text that :meth:`from_json` reads."""
        return json.dumps(self.values())

    @classmethod
    def from_json(cls, text: str) -> TaskToStart:
        """Read what this version or another one has stored; what a later one adds is left out.

        Raises:
            ValueError: it is not JSON.
            TypeError: something is missing.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})

    def for_a_kill(self) -> TaskToStart:
        """The task with only those fields that may have to be rendered to end its jobs.

        These are found by their request ids, which are numbered as the commands are. A command may take long
        to render, or fail to.
        """
        commands = self.fields["commands"]
        if isinstance(commands, list):
            commands = [{"cmd": "true"}] * len(commands)
        return replace(self, fields={**self.fields, "commands": commands, "env": None, "cwd": None})
