"""Whole DAGs, run by Airflow itself (``dag.test()``) with a real database and a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from remsvc.command import crc32hex

DAGS = Path(__file__).parent / "dags"
TOKEN = "tok-0123456789"

# All DAGs in one interpreter: starting Airflow costs more than running them.
PROGRAM = """
import json
import remsvc_test_dags as dags
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.sdk import DAG, timezone
from airflow.utils.session import create_session

for name, dag in vars(dags).items():
    if not isinstance(dag, DAG):
        continue
    print("STARTING", name, flush=True)
    run = dag.test(logical_date=timezone.datetime(2030, 1, 2))
    tasks = {}
    for ti in run.get_task_instances():
        with create_session() as session:
            rendered = RenderedTaskInstanceFields.get_templated_fields(ti, session=session)
        tasks[f"{ti.task_id}/{ti.map_index}"] = {
            "state": str(ti.state),
            "xcom": ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index),
            "rendered": rendered,
        }
    print("ENDED" + json.dumps([name, str(run.state), tasks]), flush=True)
"""


@dataclass
class Run:
    """What became of a DAG."""

    state: str
    tasks: dict[str, dict[str, Any]]
    log: str


@pytest.fixture(scope="module")
def pid_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a command that must be ended writes its process id."""
    return tmp_path_factory.mktemp("pid") / "pid"


@pytest.fixture(scope="module")
def runs(serve_module, tmp_path_factory: pytest.TempPathFactory, pid_file: Path) -> dict[str, Run]:
    """Every DAG of the folder, run once."""
    server = serve_module(f"[auth]\nairflow = {TOKEN}\n", "--host=127.0.0.1")
    home = tmp_path_factory.mktemp("airflow-home")
    connection = {"conn_type": "remsvc", "host": server.host, "port": server.port}
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW_CONN_REMSVC_TEST": json.dumps({**connection, "extra": {"bearer_token": TOKEN}}),
        **{
            f"AIRFLOW_CONN_REMSVC_{name}": json.dumps({**connection, "extra": {"bearer_token": TOKEN}})
            for name in ("DEFAULT", "WEB1", "WEB2")
        },
        "AIRFLOW_CONN_REMSVC_WITHOUT_TOKEN": json.dumps(connection),
        "PYTHONPATH": str(DAGS),
        "REMSVC_TEST_PID_FILE": str(pid_file),
        "REMSVC_TEST_TOKEN": TOKEN,
    }
    # Before 3.2, dag.test() takes only a DAG that is in the database.
    for verb in (["db", "migrate"], ["dags", "reserialize"]):
        command = [sys.executable, "-m", "airflow", *verb]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    ended: dict[str, Run] = {}
    log: list[str] = []
    for line in done.stdout.splitlines():
        if line.startswith("STARTING "):
            log = []
        elif line.startswith("ENDED"):
            name, state, tasks = json.loads(line.removeprefix("ENDED"))
            ended[name] = Run(state, tasks, "\n".join(log))
        else:
            log.append(line)
    assert done.returncode == 0, done.stdout
    return ended


pytestmark = pytest.mark.timeout(300)


def test_templates_and_the_xcom_for_the_next_task(runs):
    run = runs["templated"]
    assert run.state == "success", run.log
    assert run.tasks["run/-1"]["xcom"] == {
        "state": "SUCCESS",
        "results": [
            {
                "tid": 1,
                "rc": 0,
                "out": "2030-01-02\n",
                "err": "",
                "hsh": crc32hex("echo 2030-01-02"),
                "cmd": "echo 2030-01-02",
            },
            {
                "tid": 2,
                "rc": 0,
                "out": "",
                "err": "run\n",
                "hsh": crc32hex("echo run >&2"),
                "cmd": "echo run >&2",
            },
        ],
        "error_msg": None,
    }
    assert run.tasks["check/-1"]["state"] == "success"
    assert run.tasks["run/-1"]["rendered"]["commands"][0] == {"cmd": "echo 2030-01-02"}


def test_the_task_log_tells_the_story_without_the_token(runs):
    log = runs["templated"].log
    for text in (
        "bearer token",
        "Command 1: echo 2030-01-02",
        "ended with rc 0",
        "1 out | 2030-01-02",
        "All 2 command(s)",
    ):
        assert text in log
    assert TOKEN not in log


def test_result_handler_gets_numbers(runs):
    assert runs["many"].tasks["run/-1"]["xcom"]["results"] == {str(n): f"{n}\n" for n in range(1, 13)}


def test_dynamic_mapping(runs):
    run = runs["mapped"]
    assert run.state == "success", run.log
    assert [len(run.tasks[f"run/{index}"]["xcom"]["results"]) for index in (0, 1)] == [1, 2]
    assert run.tasks["collect/-1"]["xcom"] == ["a\n", "b\n", "c\n"]


def test_commands_from_an_xcom(runs):
    assert runs["commands_from_xcom"].tasks["run/-1"]["xcom"]["results"][0]["out"] == "made\n"


def test_a_failing_command_fails_the_task(runs):
    run = runs["failing"]
    assert run.tasks["run/-1"]["state"] == "failed"
    assert (
        "RemSvc commands ended with state FAILED: command 2 (commands[1]) ended with rc 3: broken" in run.log
    )


def test_an_exceeded_stream_timeout_is_not_retried(runs):
    run = runs["too_slow"]  # has retries
    assert run.tasks["run/-1"]["state"] == "failed"
    assert "stream_timeout of 1 s exceeded" in run.log


def test_not_deferrable(runs):
    assert runs["in_the_worker"].tasks["run/-1"]["xcom"]["results"][0]["out"] == "here\n"
    assert "DEFERRED" not in runs["in_the_worker"].log


def test_execution_timeout_in_the_worker(runs, pid_file):
    run = runs["worker_too_slow"]
    assert run.tasks["run/-1"]["state"] == "failed"
    assert "AirflowTaskTimeout" in run.log
    process = Path("/proc", pid_file.read_text().strip())
    end = time.monotonic() + 30
    while process.exists():
        assert time.monotonic() < end, "the command goes on"
        time.sleep(0.05)


@pytest.mark.parametrize("dag", ["with_metadata", "mapped_with_metadata"])
def test_a_token_in_the_metadata_reaches_the_server_and_nobody_else(runs, dag):
    run = runs[dag]
    assert run.state == "success", run.log
    (task,) = run.tasks.values()
    assert task["rendered"]["metadata"] == [["authorization", "***"], ["x-run", "2030-01-02"]]
    assert TOKEN not in run.log


def test_the_examples(runs):
    for name in ("use_the_output", "long_job", "many_servers"):
        assert runs[name].state == "success", runs[name].log
    assert re.fullmatch(r"\S+ has \d+ cores", runs["use_the_output"].tasks["report/-1"]["xcom"])
    (result,) = runs["long_job"].tasks["work/-1"]["xcom"]["results"]
    assert [line.split(" for ")[0] for line in result["out"].splitlines()] == [
        f"step {number} of 3" for number in (1, 2, 3)
    ]
    assert runs["many_servers"].tasks["longest/-1"]["xcom"] > 0
