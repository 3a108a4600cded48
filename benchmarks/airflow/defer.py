"""Put task instances into Airflow's database as deferred: ``python -m benchmarks.airflow.defer PLAN``.

PLAN is a :class:`benchmarks.airflow.deferral.Plan` as JSON. Runs with Airflow's environment.
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

from benchmarks.airflow.deferral import Plan
from benchmarks.airflow.loop_probe import LoopProbe, Sleeper
from benchmarks.airflow.timed_trigger import TimedTrigger
from remsvc_provider.origin import Origin


def main(plan: Plan) -> None:
    wanted = select(TaskInstance).where(
        TaskInstance.run_id == plan.run_id, TaskInstance.task_id.in_(plan.tasks)
    )
    with create_session() as session:
        for instance in session.scalars(wanted).all():
            instance.try_number = 1
            row = Trigger.from_object(_trigger(plan, instance))
            session.add(row)
            session.flush()
            instance.trigger_id = row.id
            instance.state = "deferred"
            instance.next_method = "execute_complete"
            if plan.pause:
                session.commit()
                time.sleep(plan.pause)


def _trigger(plan: Plan, instance: TaskInstance) -> Any:
    if instance.task_id == "probe":
        return LoopProbe(path=f"{plan.trace}.probe")
    if plan.ssh_jobs:
        return _ssh_trigger(plan, instance)
    if not plan.command:
        return Sleeper(trace=plan.trace)
    connections = plan.connections
    return TimedTrigger(
        trace=plan.trace,
        commands=[{"cmd": plan.command}],
        grpc_conn_id=connections[max(instance.map_index, 0) % len(connections)],
        origin=Origin.of(instance).arguments(),
        deferred_at=time.time(),
    )


def _ssh_trigger(plan: Plan, instance: TaskInstance) -> Any:
    from airflow.providers.ssh.triggers.ssh_remote_job import SSHRemoteJobTrigger

    folder = f"{plan.ssh_jobs}/{instance.map_index}"
    return SSHRemoteJobTrigger(
        ssh_conn_id=plan.connections[0],
        remote_host=None,
        job_id=f"job-{instance.map_index}",
        job_dir=folder,
        log_file=f"{folder}/stdout.log",
        exit_code_file=f"{folder}/exit_code",
        remote_os="posix",
    )


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
