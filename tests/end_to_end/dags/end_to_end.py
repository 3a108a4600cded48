"""The DAGs of the end-to-end tests. What they run, and where, comes with each run's ``conf``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from remsvc_provider.operators.remsvc import RemSvcOperator

CONNECTION = "{{ dag_run.conf['connection'] }}"
COMMAND = [{"cmd": "{{ dag_run.conf['cmd'] }}", "src": "{{ run_id }}"}]

RETRIED: dict[str, Any] = {"retries": 20, "retry_delay": timedelta(seconds=1), "max_retry_delay": 1}


def make_dag(dag_id: str, **parameters: Any) -> DAG:
    with DAG(dag_id, schedule=None) as dag:
        RemSvcOperator(task_id="remote", **{"commands": COMMAND, "grpc_conn_id": CONNECTION, **parameters})
    return dag


command = make_dag("command")
command_with_retries = make_dag("command_with_retries", **RETRIED)
command_in_worker = make_dag("command_in_worker", deferrable=False)
short_stream_timeout = make_dag("short_stream_timeout", stream_timeout=8.0, **RETRIED)
short_execution_timeout = make_dag(
    "short_execution_timeout",
    execution_timeout=timedelta(seconds=8),
    retries=1,
    retry_delay=timedelta(seconds=1),
)
# Twelve: sorted as text, command 10 would come before command 2.
twelve_commands = make_dag(
    "twelve_commands", commands=[{"cmd": f"echo {number} on {{{{ ds }}}}"} for number in range(1, 13)]
)
three_commands = make_dag(
    "three_commands",
    commands=[{"cmd": "echo fine"}, {"cmd": "echo broken >&2; exit 3"}, {"cmd": "echo also fine"}],
)
with_a_secret = make_dag(
    "with_a_secret",
    commands=[
        {"cmd": "echo {{ var.value.end_to_end_secret }} as can be read; exit {{ dag_run.conf['cmd'] }}"}
    ],
)
three_steps = make_dag(
    "three_steps",
    commands=[{"cmd": f"{{{{ dag_run.conf['{name}'] }}}}"} for name in ("before", "cmd", "after")],
)

with DAG("mapped_tasks", schedule=None) as mapped_tasks:
    RemSvcOperator.partial(task_id="remote", grpc_conn_id=CONNECTION).expand(
        commands=[[{"cmd": f"{{{{ dag_run.conf['cmd'] }}}} {number}"}] for number in range(16)]
    )
durable_steps = make_dag(
    "durable_steps",
    commands=[{"cmd": f"{{{{ dag_run.conf['{name}'] }}}}"} for name in ("before", "cmd")],
    durable=True,
    retries=1,
    retry_delay=timedelta(seconds=1),
)
