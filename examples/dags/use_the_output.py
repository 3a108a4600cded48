"""Give what a command printed to the next task.

The commands run one after another, each in a shell of its own. The task's XCom has one result for each of
them, in their order: its exit code and both its outputs.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from remsvc_provider.operators.remsvc import RemSvcOperator

with DAG("use_the_output", schedule=None, tags=["remsvc", "example"], doc_md=__doc__) as use_the_output:
    look = RemSvcOperator(task_id="look", commands=[{"cmd": "uname -n"}, {"cmd": "nproc"}])

    @task
    def report(looked: dict[str, Any]) -> str:
        name, cores = (result["out"].strip() for result in looked["results"])
        return f"{name} has {cores} cores"

    report(look.output)
