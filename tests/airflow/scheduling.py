"""Starting tasks in a triggerer, as Airflow's DAG processor, scheduler and triggerer do together."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import BaseTrigger
from triggering import RUN_STARTED

from remsvc_provider.triggers.start import RemSvcStartTrigger

STARTS = hasattr(BaseTrigger, "render_template_fields")
"""Whether this Airflow can start tasks in the triggerer."""

needs_start = pytest.mark.skipif(not STARTS, reason="Airflow starts tasks in the triggerer from 3.3 on")

LOGICAL_DATE = datetime(2030, 1, 1, tzinfo=timezone.utc)


def _serialization() -> Any:
    from airflow.serialization import serialized_objects

    # The second is its name in Airflow 3.1.
    return getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG


def serialized(dag: DAG) -> dict[str, Any]:
    """A DAG as the database has it."""
    stored: dict[str, Any] = json.loads(json.dumps(_serialization().to_dict(dag)))
    return stored


def scheduled(dag: DAG, task_id: str = "run") -> Any:
    """A task as the scheduler sees it."""
    return _serialization().from_dict(serialized(dag)).get_task(task_id)


def starts_in_triggerer(task: BaseOperator) -> bool:
    """Whether the scheduler defers a task by itself."""
    seen = scheduled(task.dag, task.task_id)
    return bool(seen.start_from_trigger is True and seen.start_trigger_args)


def stored_trigger(dag: DAG, task_id: str = "run") -> str:
    """The arguments of the trigger by which the scheduler defers a task, as the database has them."""
    from airflow.models.trigger import Trigger

    arguments = scheduled(dag, task_id).start_trigger_args
    return Trigger(classpath=arguments.trigger_cls, kwargs=arguments.trigger_kwargs).encrypted_kwargs


def started(
    dag: DAG,
    task_id: str = "run",
    *,
    conf: Mapping[str, Any] | None = None,
    cleared: int = 0,
    deferred_at: datetime | None = None,
    run_started: datetime = RUN_STARTED,
    **changes: Any,
) -> RemSvcStartTrigger:
    """The trigger of a task that was deferred by the scheduler, as a triggerer makes it.

    Args:
        dag: with the task.
        task_id: of the task.
        conf: of the DAG run.
        cleared: how often tasks of the run were cleared.
        deferred_at: when the scheduler deferred the task; left out: now.
        run_started: when the run began.
        changes: of the task instance.
    """
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.dagrun import DagRun
    from airflow.models.trigger import Trigger
    from airflow.serialization.decoders import smart_decode_trigger_kwargs
    from airflow.utils.types import DagRunType

    task = scheduled(dag, task_id)
    assert task.start_from_trigger is True
    arguments = Trigger._decrypt_kwargs(stored_trigger(dag, task_id))
    trigger = RemSvcStartTrigger(**{k: smart_decode_trigger_kwargs(v) for k, v in arguments.items()})
    values = {
        "id": uuid.uuid4(),
        "dag_id": dag.dag_id,
        "run_id": f"manual__{uuid.uuid4()}",
        "task_id": task_id,
        "map_index": -1,
        "try_number": 1,
        "dag_version_id": uuid.uuid4(),
        "pool_slots": 1,
        "priority_weight": 1,
    }
    ti = TaskInstanceDTO(**{**values, **changes})
    run = DagRun(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        logical_date=LOGICAL_DATE,
        data_interval=(LOGICAL_DATE, LOGICAL_DATE),
        run_after=LOGICAL_DATE,
        start_date=run_started,
        run_type=DagRunType.MANUAL,
        state="running",
        conf=conf,
    )
    run.clear_number = cleared
    data = run.dag_run_data.model_dump(exclude_unset=True)
    instance = TriggerRunner.create_runtime_ti(ti, serialized(dag), data)
    context = instance.get_template_context()
    trigger.task_instance = instance
    begun = deferred_at or datetime.now(timezone.utc)
    limit = task.start_trigger_args.timeout or timedelta.max
    trigger.timeout_after = begun + min(limit, task.execution_timeout or limit)
    trigger.render_template_fields(context=context)
    return trigger


async def created(classpath: str, arguments: Mapping[str, Any]) -> list[Any]:
    """Have Airflow's own code create a trigger of what is stored, and run it: the payload of its event, or
    nothing where Airflow could not create it, and has gone on."""
    from airflow.executors.workloads import RunTrigger
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger

    values = {
        "id": uuid.uuid4(),
        "dag_id": "dag",
        "run_id": "run",
        "task_id": "run",
        "map_index": -1,
        "try_number": 1,
        "dag_version_id": uuid.uuid4(),
        "pool_slots": 1,
        "priority_weight": 1,
        "queue": "default",
    }
    workload = RunTrigger(
        id=1,
        classpath=classpath,
        encrypted_kwargs=Trigger.encrypt_kwargs(dict(arguments)),
        ti=TaskInstanceDTO(**values),
    )
    runner = TriggerRunner()
    runner.to_create.append(workload)
    await runner.create_triggers()
    if runner.failed_triggers:
        return []
    await runner.triggers[1]["task"]
    return [entry[1].payload for entry in runner.events]
