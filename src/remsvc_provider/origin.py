"""The try of a task that asks for commands. It gives their jobs the names by which they are found again."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

READABLE = 80
"""Characters of a request id that the names of DAG, run and task may have; a hash of all of them follows."""

_UNPRINTABLE = re.compile(r"[^!-~]")

RUN_STARTED = "airflow_run_started"
TRY_NUMBER = "airflow_try_number"
COMMAND = "airflow_command"


@dataclass(frozen=True, slots=True)
class Origin:
    """One try of a task instance: who asks for jobs.

    Attributes:
        request_id: the same for this try wherever it is computed, and for no other: neither for a
            retry, nor for a run of the same name after this one was deleted.
        labels: what the jobs of the task instance have in common, for as long as Airflow does not start
            its DAG run over: see :attr:`task_labels`.
        try_number: of this try.
        first_try: number of the first try since the task instance was created or cleared.
        run_cleared: whether tasks of the DAG run have been cleared. Airflow then starts a run that had
            ended over, with a new start date, while the run's earlier jobs have the old one.
        last_try: whether no retry follows.
    """

    request_id: str
    labels: Mapping[str, str]
    try_number: int = 1
    first_try: int = 1
    run_cleared: bool = False
    last_try: bool = False

    @property
    def task_labels(self) -> dict[str, str]:
        """What names the task instance, and is never renewed."""
        return {key: value for key, value in self.labels.items() if key != RUN_STARTED}

    def began_before(self, labels: Mapping[str, str]) -> bool:
        """Whether a job with these labels is of this DAG run, before it was started over."""
        ours, its = self.labels.get(RUN_STARTED), labels.get(RUN_STARTED)
        if not (self.run_cleared and ours and its):
            return False
        try:
            return datetime.fromisoformat(its) < datetime.fromisoformat(ours)
        except (ValueError, TypeError):
            return False  # not a label of ours

    def command_id(self, tid: int) -> str:
        """The request id of a command: at most 128 printable ASCII characters."""
        return f"{self.request_id}/{tid}"

    def command_labels(self, tid: int) -> dict[str, str]:
        """The labels of a command's job."""
        return {**self.labels, TRY_NUMBER: str(self.try_number), COMMAND: str(tid)}

    def arguments(self) -> dict[str, Any]:
        """For a trigger to store; :meth:`from_arguments` reads it."""
        return {
            "request_id": self.request_id,
            "labels": dict(self.labels),
            "try_number": self.try_number,
            "first_try": self.first_try,
            "run_cleared": self.run_cleared,
            "last_try": self.last_try,
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Origin:
        """What :meth:`arguments` gave, of this version or another: what a later one adds is left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in arguments.items() if name in known})

    @classmethod
    def unknown(cls) -> Origin:
        """Of commands that nobody asks for but this process, once."""
        return cls(request_id=f"airflow/{uuid.uuid4()}", labels={})

    @classmethod
    def of(cls, task_instance: Any, context: Mapping[str, Any] | None = None) -> Origin:
        """The try that a task instance stands for, in the worker or in a trigger.

        Args:
            task_instance: as Airflow hands it out.
            context: the task's context, where there is one. Without it, it is not known which try
                was the first, nor when the run started.
        """
        ti = task_instance
        max_tries = getattr(ti, "max_tries", None)
        return cls._of(ti, context or {}, max_tries if isinstance(max_tries, int) else None)

    @classmethod
    def of_first_try(cls, context: Mapping[str, Any]) -> Origin:
        """The first try of a task, where Airflow does not tell how many there may be: in a triggerer."""
        return cls._of(context["ti"], context, context["ti"].task.retries)

    @classmethod
    def _of(cls, ti: Any, context: Mapping[str, Any], max_tries: int | None) -> Origin:
        labels = {
            "airflow_dag_id": ti.dag_id,
            "airflow_run_id": ti.run_id,
            "airflow_task_id": ti.task_id,
            "airflow_map_index": str(ti.map_index),
        }
        run = context.get("dag_run")
        started = getattr(run, "start_date", None)
        if started is not None:
            # Tells apart runs of the same name: of one that was deleted, or of another Airflow.
            labels[RUN_STARTED] = started.astimezone(timezone.utc).isoformat()
        return cls(
            request_id=_request_id(ti),
            labels={key: value[:255] for key, value in labels.items()},
            try_number=ti.try_number,
            first_try=_first_try(ti, max_tries),
            run_cleared=bool(getattr(run, "clear_number", 0)),
            last_try=max_tries is not None and ti.try_number > max_tries,
        )


def _request_id(ti: Any) -> str:
    """Readable, and unique by a hash. ``ti.id`` is another one for each try and each run."""
    names = [str(ti.dag_id), str(ti.run_id), str(ti.task_id)]
    everything = "\n".join([*names, str(ti.map_index), str(ti.try_number), str(getattr(ti, "id", ""))])
    digest = hashlib.sha256(everything.encode("utf-8", errors="replace")).hexdigest()[:16]
    dag, run, task = _fit([_UNPRINTABLE.sub("_", name) for name in names], READABLE)
    mapped = f"[{ti.map_index}]" if ti.map_index >= 0 else ""
    return f"{dag}/{run}/{task}{mapped}/try{ti.try_number}-{digest}"


def _fit(names: list[str], room: int) -> list[str]:
    """Cut the longest names until all together fit."""
    longest = room
    while sum(min(len(name), longest) for name in names) > room:
        longest -= 1
    return [name if len(name) <= longest else name[: longest - 1] + "~" for name in names]


def _first_try(ti: Any, max_tries: int | None) -> int:
    """Clearing a task instance sets ``max_tries`` to the tries so far and the task's retries; a retry
    leaves it as it is. Airflow itself finds the first try in this way."""
    retries = getattr(getattr(ti, "task", None), "retries", None)
    if max_tries is None or not isinstance(retries, int):
        return int(ti.try_number)
    return max(1, min(max_tries - retries + 1, int(ti.try_number)))
