"""Where commands come from: the try of a task that asks for them. It names their jobs."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

READABLE = 80
"""Characters of a request id for the names of DAG, run and task; a hash of all of it follows."""

_UNPRINTABLE = re.compile(r"[^!-~]")

TRY_NUMBER = "airflow_try_number"
COMMAND = "airflow_command"


@dataclass(frozen=True, slots=True)
class Origin:
    """One try of a task instance.

    Attributes:
        request_id: the same for this try wherever it is computed, and for no other: neither for a
            retry, nor for a run of the same name after this one was deleted.
        labels: what the jobs of all tries of the task instance have in common.
        try_number: of this try.
        first_try: number of the first try since the task instance was created or cleared.
    """

    request_id: str
    labels: Mapping[str, str]
    try_number: int = 1
    first_try: int = 1

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
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Origin:
        """What :meth:`arguments` gave."""
        return cls(**arguments)

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
        labels = {
            "airflow_dag_id": ti.dag_id,
            "airflow_run_id": ti.run_id,
            "airflow_task_id": ti.task_id,
            "airflow_map_index": str(ti.map_index),
        }
        started = getattr((context or {}).get("dag_run"), "start_date", None)
        if started is not None:
            # Tells apart runs of the same name: of one that was deleted, or of another Airflow.
            labels["airflow_run_started"] = started.isoformat()
        return cls(
            request_id=_request_id(ti),
            labels={key: value[:255] for key, value in labels.items()},
            try_number=ti.try_number,
            first_try=_first_try(ti),
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


def _first_try(ti: Any) -> int:
    """Clearing a task instance sets ``max_tries`` to the tries so far and the task's retries; a retry
    leaves it as it is. Airflow itself finds the first try in this way."""
    max_tries = getattr(ti, "max_tries", None)
    retries = getattr(getattr(ti, "task", None), "retries", None)
    if not isinstance(max_tries, int) or not isinstance(retries, int):
        return int(ti.try_number)
    return max(1, min(max_tries - retries + 1, int(ti.try_number)))
