"""Run the same commands on several servers, each as a task instance of its own.

Each server has a connection of type ``remsvc``. Airflow maps the task over their ids, so each server has its
own log, its own retries and its own result, and the next task sees all of them.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from remsvc_provider.operators.remsvc import RemSvcOperator

SERVERS = ["remsvc_web1", "remsvc_web2"]

with DAG("many_servers", schedule=None, tags=["remsvc", "example"], doc_md=__doc__) as many_servers:
    uptime = RemSvcOperator.partial(task_id="uptime", commands=[{"cmd": "cat /proc/uptime"}]).expand(
        grpc_conn_id=SERVERS
    )

    @task
    def longest(uptimes: list[dict[str, Any]]) -> float:
        return max(float(one["results"][0]["out"].split()[0]) for one in uptimes)

    longest(uptime.output)
