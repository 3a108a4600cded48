"""The DAGs of the end-to-end tests. What they run, and where, comes with each run's ``conf``."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import DAG

from remsvc_provider.operators.remsvc import RemSvcOperator
from remsvc_provider.outcome import Results

CONNECTION = "{{ dag_run.conf['connection'] }}"
COMMAND = [{"cmd": "{{ dag_run.conf['cmd'] }}", "src": "{{ run_id }}"}]

RETRIED: dict[str, Any] = {"retries": 20, "retry_delay": timedelta(seconds=1), "max_retry_delay": 1}


BY_WORKER = "_by_worker"
"""At the end of a DAG's id: a worker starts its task, where those of the others start in the triggerer."""


def make_dag(dag_id: str, **parameters: Any) -> None:
    for end, start_from_trigger in (("", True), (BY_WORKER, False)):
        with DAG(dag_id + end, schedule=None) as dag:
            RemSvcOperator(
                task_id="remote",
                start_from_trigger=start_from_trigger,
                **{"commands": COMMAND, "grpc_conn_id": CONNECTION, **parameters},
            )
        globals()[dag.dag_id] = dag


make_dag("command")
make_dag("command_with_retries", **RETRIED)
make_dag("command_in_worker", deferrable=False)
make_dag("short_stream_timeout", stream_timeout=8.0, **RETRIED)
make_dag(
    "short_execution_timeout",
    execution_timeout=timedelta(seconds=8),
    retries=1,
    retry_delay=timedelta(seconds=1),
)
# Twelve: sorted as text, command 10 would come before command 2.
make_dag("twelve_commands", commands=[{"cmd": f"echo {number} on {{{{ ds }}}}"} for number in range(1, 13)])
make_dag(
    "three_commands",
    commands=[{"cmd": "echo fine"}, {"cmd": "echo broken >&2; exit 3"}, {"cmd": "echo also fine"}],
)
make_dag(
    "with_a_secret",
    commands=[
        {"cmd": "echo {{ var.value.end_to_end_secret }} as can be read; exit {{ dag_run.conf['cmd'] }}"}
    ],
)
make_dag(
    "three_steps",
    commands=[{"cmd": f"{{{{ dag_run.conf['{name}'] }}}}"} for name in ("before", "cmd", "after")],
)

make_dag(
    "durable_steps",
    commands=[{"cmd": f"{{{{ dag_run.conf['{name}'] }}}}"} for name in ("before", "cmd")],
    durable=True,
    retries=1,
    retry_delay=timedelta(seconds=1),
)

with DAG("mapped_tasks", schedule=None) as mapped_tasks:
    RemSvcOperator.partial(task_id="remote", grpc_conn_id=CONNECTION).expand(
        commands=[[{"cmd": f"{{{{ dag_run.conf['cmd'] }}}} {number}"}] for number in range(16)]
    )

with DAG("sixteen_tasks", schedule=None) as sixteen_tasks:
    for number in range(16):
        RemSvcOperator(
            task_id=f"remote_{number}",
            grpc_conn_id=CONNECTION,
            commands=[{"cmd": f"{{{{ dag_run.conf['cmd'] }}}} {number}"}],
        )


def output(results: Results) -> str:
    """A result_handler: only what the first command has printed."""
    return str(results[1]["out"])


def make_both(dag_id: str, start_from_trigger: bool) -> DAG:
    """A DAG with one task for each thing that has to be the same, whoever starts it."""
    with DAG(dag_id, schedule=None) as dag:
        operator = partial(
            RemSvcOperator, grpc_conn_id=CONNECTION, start_from_trigger=start_from_trigger, retry_delay=0
        )
        operator(
            task_id="templates",
            commands=[
                {
                    "cmd": "echo {{ ds }} {{ dag_run.conf['cmd'] }} $A $B; pwd",
                    "env": {"B": "{{ ti.task_id }}"},
                },
                {"argv": ["echo", "{{ '3.10' }}"], "cwd": "/{{ 'usr' }}"},
                {"cmd": "od -An -c", "input": "{{ ti.try_number }}\r\n"},
            ],
            env={"A": "{{ dag_run.conf['cmd'] | upper }}"},
            cwd="/{{ 'tmp' }}",
            metadata=[("x-run", "{{ run_id }}")],
            parallel=3,
        )
        before = operator(task_id="handler", commands=[{"cmd": "echo of the first"}], result_handler=output)
        before >> operator(
            task_id="from_upstream",
            commands=[{"cmd": "echo 'after {{ ti.xcom_pull('handler')['results'] | trim }}'"}],
        )
        operator(
            task_id="secret",
            commands=[{"cmd": "echo {{ var.value.end_to_end_secret }}"}],
            metadata=[("authorization", "Bearer {{ var.value.end_to_end_secret }}"), ("x-key", "{{ ds }}")],
        )
        operator(task_id="skipped", commands=[{"cmd": "exit 9"}], skip_on_exit_code=9)
        operator(task_id="unusable", commands=[{"cmd": "true"}, {"cmd": "true", "cmdtyp": 2}])
        operator(
            task_id="retried",
            commands=[{"cmd": "mkdir once && exit 1; echo again"}],
            cwd="{{ dag_run.conf['directory'] }}",
            metadata=[("x-run", "{{ run_id }}")],
            retries=1,
        )
        operator(task_id="no_time", commands=[{"cmd": "sleep 60"}], execution_timeout=timedelta(seconds=3))
        operator(task_id="in_worker", commands=[{"cmd": "echo {{ ds }}"}], deferrable=False)
        operator(task_id="of_a_worker", commands=[{"cmd": "echo {{ ti.max_tries }}"}])
        RemSvcOperator.partial(
            task_id="mapped", grpc_conn_id=CONNECTION, start_from_trigger=start_from_trigger
        ).expand(commands=[[{"cmd": f"echo {number} {{{{ ds }}}}"}] for number in range(2)])
    with DAG(
        f"{dag_id}_native", schedule=None, render_template_as_native_obj=True, params={"env": {"A": "1"}}
    ) as native:
        RemSvcOperator(
            task_id="native",
            grpc_conn_id=CONNECTION,
            start_from_trigger=start_from_trigger,
            commands=[
                {"argv": "{{ ['echo', '3.10'] }}", "env": "{{ params.env }}"},
                {"cmd": "echo {{ '007' }}\n", "cmdtyp": "{{ 0 }}"},
            ],
        )
    globals()[f"{dag_id}_native"] = native
    return dag


both = make_both("both", True)
both_by_worker = make_both(f"both{BY_WORKER}", False)
