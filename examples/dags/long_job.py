"""Run a command for hours that survives restarts of Airflow's workers, triggerers and of the server.

While the command runs, its task is deferred and takes no worker's place. What it prints appears in the task's
log at once. With ``durable=True`` a retry finds the command that the try before has left running, or that
has succeeded meanwhile, and takes it over instead of running it again.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from remsvc_provider.operators.remsvc import RemSvcOperator

STEPS = 'for step in 1 2 3; do echo "step $step of 3 for $RUN"; sleep 1; done'

with DAG("long_job", schedule=None, tags=["remsvc", "example"], doc_md=__doc__) as long_job:
    RemSvcOperator(
        task_id="work",
        commands=[{"cmd": STEPS}],
        env={"RUN": "{{ run_id }}"},
        cwd="/tmp",
        durable=True,
        stream_timeout=4 * 3600.0,  # seconds for all commands: then they are ended, and the task fails
        retries=3,
        retry_delay=timedelta(minutes=1),
    )
