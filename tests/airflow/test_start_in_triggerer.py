"""Tasks that start in the triggerer: the same as a worker would make of them, or a worker starts them."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG
from scheduling import needs_start, started
from triggering import fire, results

from remsvc_provider.operators.remsvc import RemSvcOperator

pytestmark = needs_start


def in_dag(native: bool = False, dag_arguments: dict[str, Any] | None = None, **parameters: Any) -> DAG:
    """A DAG with one task."""
    with DAG("dag", schedule=None, render_template_as_native_obj=native, **(dag_arguments or {})) as dag:
        RemSvcOperator(
            task_id="run", **{"commands": [{"cmd": "true"}], "grpc_conn_id": "remsvc_test", **parameters}
        )
    return dag


async def test_a_task_starts(conn_id):
    dag = in_dag(commands=[{"cmd": "echo {{ ds }} {{ dag_run.conf['x'] }} {{ ti.try_number }}"}])
    event = await fire(started(dag, conf={"x": "y"}))
    assert event["state"] == "SUCCESS"
    assert results(event)[0]["out"] == "2030-01-01 y 1\n"
