"""Run commands on another machine, then use their results.

The first task is deferred while its commands run, so it holds no worker slot. It needs a connection
`remsvc_default`, which `remsvc init` prints for a new server.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from remsvc_provider.operators.remsvc import RemSvcOperator, crc32hex

COMMANDS = ["echo {{ ds }}", "hostname", "uname -a", "whoami", "ps"]


@dag(schedule=None, tags=["remsvc", "example"], doc_md=__doc__)
def remote_commands() -> None:
    run_commands = RemSvcOperator(
        task_id="run_commands",
        commands=[{"cmd": command, "src": "{{ dag.dag_id }}"} for command in COMMANDS],
        stream_timeout=60.0,
    )

    @task
    def validate(value: dict[str, Any], ds: str) -> str:
        """Check everything that came back, and return a summary."""
        assert value["state"] == "SUCCESS", value
        assert value["error_msg"] is None, value
        results = value["results"]
        assert [result["tid"] for result in results] == list(range(1, len(COMMANDS) + 1)), results
        for result in results:
            assert result["rc"] == 0, result
            assert result["out"].strip(), result
            assert result["hsh"] == crc32hex(result["cmd"]), result
        assert results[0]["cmd"] == f"echo {ds}", results[0]
        assert results[0]["out"] == f"{ds}\n", results[0]
        return f"{len(results)} commands ran on {results[1]['out'].strip()} as {results[3]['out'].strip()}"

    validate(run_commands.output)


remote_commands()
