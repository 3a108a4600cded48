"""The DAGs of test_dag_runs.py, which says what each must do."""

from __future__ import annotations

import datetime
import os
import runpy
from pathlib import Path

from airflow.sdk import DAG, task

from remsvc_provider.operators.remsvc import RemSvcOperator

START = datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone.utc)
DEFAULTS = {"grpc_conn_id": "remsvc_test", "stream_timeout": 60.0}


def dag(dag_id: str) -> DAG:
    return DAG(dag_id, schedule=None, start_date=START, default_args=DEFAULTS)


with dag("templated") as templated:
    run = RemSvcOperator(
        task_id="run",
        commands=[
            {"cmd": "echo {{ ds }}"},
            {"cmd": "echo {{ task.task_id }} >&2", "src": "{{ dag.dag_id }}"},
        ],
    )

    @task
    def check(value: dict) -> None:
        assert value["state"] == "SUCCESS"
        assert [result["out"] for result in value["results"]] == ["2030-01-02\n", ""]
        assert value["results"][0]["cmd"] == "echo 2030-01-02"
        assert value["results"][1]["err"] == "run\n"
        assert value["error_msg"] is None

    check(run.output)


with dag("many") as many:
    RemSvcOperator(
        task_id="run",
        commands=[{"cmd": f"echo {number}"} for number in range(1, 13)],
        result_handler=lambda results: {tid: result["out"] for tid, result in results.items()},
    )


with dag("mapped") as mapped:

    @task
    def hosts() -> list[list[dict]]:
        return [[{"cmd": "echo a"}], [{"cmd": "echo b"}, {"cmd": "echo c"}]]

    run = RemSvcOperator.partial(task_id="run").expand(commands=hosts())

    @task
    def collect(values: list[dict]) -> list[str]:
        return [result["out"] for value in values for result in value["results"]]

    collect(run.output)


with dag("commands_from_xcom") as commands_from_xcom:

    @task
    def make() -> list[dict]:
        return [{"cmd": "echo made"}]

    RemSvcOperator(task_id="run", commands=make())


with dag("failing") as failing:
    RemSvcOperator(task_id="run", commands=[{"cmd": "true"}, {"cmd": "echo broken >&2; exit 3"}])


with dag("too_slow") as too_slow:
    RemSvcOperator(task_id="run", commands=[{"cmd": "sleep 30"}], stream_timeout=1.0, retries=3)


with dag("in_the_worker") as in_the_worker:
    RemSvcOperator(task_id="run", commands=[{"cmd": "echo here"}], deferrable=False)


with dag("worker_too_slow") as worker_too_slow:
    RemSvcOperator(
        task_id="run",
        commands=[{"cmd": f"echo $$ > {os.environ.get('REMSVC_TEST_PID_FILE')}; sleep 300"}],
        deferrable=False,
        execution_timeout=datetime.timedelta(seconds=1),
    )


METADATA = [("authorization", "Bearer " + os.environ.get("REMSVC_TEST_TOKEN", "")), ("x-run", "{{ ds }}")]

with dag("with_metadata") as with_metadata:
    RemSvcOperator(
        task_id="run", grpc_conn_id="remsvc_without_token", commands=[{"cmd": "true"}], metadata=METADATA
    )


with dag("mapped_with_metadata") as mapped_with_metadata:
    RemSvcOperator.partial(task_id="run", grpc_conn_id="remsvc_without_token", metadata=METADATA).expand(
        commands=[[{"cmd": "true"}]]
    )


EXAMPLES = Path(__file__).parents[3] / "examples" / "dags"
# The one that is left out, remote_commands, is run by the demo's own test.
for name in ("use_the_output", "long_job", "many_servers"):
    globals()[name] = runpy.run_path(str(EXAMPLES / f"{name}.py"))[name]
