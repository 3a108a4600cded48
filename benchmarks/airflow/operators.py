"""The operators that are compared, and DAGs of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.openssh import OpenSSH
from benchmarks.server import Server

SSH_CONNECTION = "benchmark_ssh"
REMSVC_CONNECTION = "benchmark_remsvc"

_DAG = """\
from airflow.sdk import DAG
from {module} import {operator}

with DAG("{dag_id}", schedule=None, max_active_tasks=1000):
    for number in range({tasks}):  # not mapped: Airflow has a worker start each mapped task
        {operator}(task_id=f"remote_{{number}}", {arguments}, {parameter}={value})
"""


@dataclass(frozen=True)
class Operator:
    """One way for Airflow to run a command on another machine.

    Attributes:
        name: of the class.
        module: that has it.
        arguments: the same for every task, as Python text; ``{folder}`` in it is a scratch folder.
        parameter: what it calls the command.
        value: the parameter's value as Python text; ``{command}`` in it is the command's.
    """

    name: str
    module: str
    arguments: str
    parameter: str = "command"
    value: str = "{command}"

    def dag_id(self, work: str) -> str:
        """The id of its DAG for some work."""
        return f"{work}_{self.name}"

    def write_dag(self, dags: Path, work: str, command: str, tasks: int) -> None:
        """Write a DAG whose tasks run the command, one each."""
        text = _DAG.format(
            module=self.module,
            operator=self.name,
            dag_id=self.dag_id(work),
            arguments=self.arguments.format(folder=dags.parent),
            parameter=self.parameter,
            value=self.value.format(command=repr(command)),
            tasks=tasks,
        )
        (dags / f"{self.dag_id(work)}.py").write_text(text, encoding="utf-8")


SSH_OPERATOR = Operator(
    name="SSHOperator",
    module="airflow.providers.ssh.operators.ssh",
    # Its own limit is 10 s.
    arguments=f'ssh_conn_id="{SSH_CONNECTION}", cmd_timeout=600',
)
SSH_REMOTE_JOB_OPERATOR = Operator(
    name="SSHRemoteJobOperator",
    module="airflow.providers.ssh.operators.ssh_remote_job",
    arguments=f'ssh_conn_id="{SSH_CONNECTION}", remote_base_dir="{{folder}}/remote-jobs"',
)
REMSVC_OPERATOR = Operator(
    name="RemSvcOperator",
    module="remsvc_provider.operators.remsvc",
    arguments=f'grpc_conn_id="{REMSVC_CONNECTION}"',
    parameter="commands",
    value='[{{"cmd": {command}}}]',
)
OVER_SSH = (SSH_OPERATOR, SSH_REMOTE_JOB_OPERATOR)


def ssh_connection(ssh: OpenSSH) -> Mapping[str, Any]:
    """Airflow's connection to the OpenSSH server."""
    extra = {"key_file": str(ssh.key), "known_hosts": str(ssh.known_hosts), "no_host_key_check": "true"}
    return {
        "connection_id": SSH_CONNECTION,
        "conn_type": "ssh",
        "host": "127.0.0.1",
        "port": ssh.port,
        "login": ssh.user,
        "extra": json.dumps(extra),
    }


def remsvc_connection(server: Server, connection_id: str = REMSVC_CONNECTION) -> Mapping[str, Any]:
    """Airflow's connection to our server, which has TLS and a token."""
    host, _, port = server.options.target.rpartition(":")
    extra = {
        "use_ssl": True,
        "ca_cert_path": str(server.options.ca_cert),
        "bearer_token": server.options.token,
    }
    return {
        "connection_id": connection_id,
        "conn_type": "remsvc",
        "host": host,
        "port": int(port),
        "extra": json.dumps(extra),
    }
