"""What the benchmark compares with: the OpenSSH server, the DAGs, the executor."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from benchmarks.airflow.operators import REMSVC_OPERATOR, SSH_OPERATOR, SSH_REMOTE_JOB_OPERATOR, Operator
from benchmarks.openssh import OpenSSH

from benchmarks import openssh

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    # pytest's own folders have names that are too long for a control socket.
    with tempfile.TemporaryDirectory(prefix="remsvc-test-") as name:
        yield Path(name)


@pytest.mark.skipif(bool(openssh.missing()), reason=openssh.missing())
def test_a_server_of_its_own_that_leaves_no_process(folder: Path) -> None:
    with OpenSSH(folder / "ssh") as ssh:
        command = ssh.ssh("-o", "ControlPath=none", "benchmark", "echo out; echo err >&2; exit 3")
        ended = subprocess.run(command, capture_output=True, timeout=50, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"out\n", b"err\n")
        servers = _processes_that_name(folder)
        assert servers
    assert not any(server.is_running() for server in servers)


def _processes_that_name(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or ())
    ]


@pytest.mark.parametrize(
    "operator", [SSH_OPERATOR, SSH_REMOTE_JOB_OPERATOR, REMSVC_OPERATOR], ids=lambda operator: operator.name
)
def test_a_dag_of_each_operator_has_the_command(operator: Operator, folder: Path) -> None:
    command = """echo "it's" \\ $(date)"""
    operator.write_dag(folder, "work", command, 3)
    text = (folder / f"work_{operator.name}.py").read_text()
    compile(text, "dag", "exec")
    assert repr(command) in text
    assert f'DAG("{operator.dag_id("work")}"' in text


def test_workers_inherit_nothing_from_the_executor(folder: Path) -> None:
    # What the scheduler has loaded, a worker need not load: its processor time would be too short.
    script = """
import sys
import benchmarks.airflow.slot_executor
print([name for name in sys.modules if name.startswith(("grpc", "remsvc.", "remsvc_provider.operators"))])
"""
    environment = {**os.environ, "AIRFLOW_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert run.stdout.splitlines()[-1] == "[]"
