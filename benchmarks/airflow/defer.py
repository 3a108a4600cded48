"""Put task instances into Airflow's database as deferred: ``python -m benchmarks.airflow.defer PLAN``.

PLAN is a :class:`benchmarks.airflow.deferred_tasks.Plan` as JSON. Runs with Airflow's environment.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from sqlalchemy import select

from benchmarks.airflow.deferred_tasks import Plan
from benchmarks.airflow.loop_probe import LoopProbe, Sleeper
from benchmarks.airflow.operators import REMSVC_CONNECTION
from remsvc_provider.origin import Origin
from remsvc_provider.triggers.remsvc import RemSvcTrigger


def main(plan: Plan) -> None:
    wanted = select(TaskInstance).where(
        TaskInstance.run_id == plan.run_id, TaskInstance.task_id.in_(plan.tasks)
    )
    with create_session() as session:
        instances = session.scalars(wanted).all()
        for instance in instances:
            instance.try_number = 1
            row = Trigger.from_object(_trigger(plan, instance))
            session.add(row)
            session.flush()
            instance.trigger_id = row.id
            instance.state = "deferred"
            instance.next_method = "execute_complete"


def _trigger(plan: Plan, instance: TaskInstance) -> Any:
    if instance.task_id == "probe":
        return LoopProbe(path=plan.probe)
    if not plan.command:
        return Sleeper(seconds=plan.seconds, trace=plan.trace)
    return RemSvcTrigger(
        commands=[{"cmd": plan.command}],
        grpc_conn_id=REMSVC_CONNECTION,
        origin=Origin.of(instance).arguments(),
        deferred_at=time.time(),
    )


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
