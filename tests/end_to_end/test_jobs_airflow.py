"""Deferred tasks over durable jobs: what a person sees, and what killing a task does."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from local_airflow import DagRun, LocalAirflow
from tests.conftest import Serve, ServerProcess
from tests.end_to_end.conftest import Connect
from tests.end_to_end.counted_command import CountedCommand
from tests.end_to_end.job_results import check_logged, logged_lines, result, xcom
from tests.end_to_end.waiting import DEADLINE, is_running, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module()


@pytest.fixture(scope="module")
def connection(server: ServerProcess, connect_cluster: Connect) -> str:
    return connect_cluster(server.port)


def run(airflow: LocalAirflow, dag_id: str, connection: str, cmd: str, **conf: str) -> DagRun:
    return airflow.api.trigger(dag_id, {"connection": connection, "cmd": cmd, **conf})


def test_output_is_in_the_log_while_the_task_is_deferred_and_whole_in_the_end(
    cluster: LocalAirflow, connection: str, counted_command: CountedCommand, mode: str
) -> None:
    dag_run = run(
        cluster, f"three_steps{mode}", connection, counted_command.cmd, before="echo 1st", after="echo 3rd"
    )
    counted_command.wait_until_started()

    wait_until(lambda: len(logged_lines(dag_run.log("remote"), 2, "out")) > 10, "output in the log")
    seen = logged_lines(dag_run.log("remote"), 2, "out")
    wait_until(
        lambda: len(logged_lines(dag_run.log("remote"), 2, "out")) > len(seen) + 10, "more output in the log"
    )
    assert dag_run.task("remote")["state"] == "deferred"
    assert counted_command.running
    assert logged_lines(dag_run.log("remote"), 1, "out") == ["1st"]
    assert logged_lines(dag_run.log("remote"), 3, "out") == []

    counted_command.release()

    assert dag_run.wait(DEADLINE) == "success", dag_run.log("remote")
    assert dag_run.xcom("remote") == xcom(
        result(1, "echo 1st", out="1st\n"),
        result(2, counted_command.cmd, out=counted_command.out, err=counted_command.err),
        result(3, "echo 3rd", out="3rd\n"),
    )
    assert len(counted_command.pids) == 1
    check_logged(dag_run, counted_command, tid=2)
    assert len(logged_lines(dag_run.log("remote"), 2, "out")) == len(counted_command.out.splitlines())


class ProcessTree:
    """A command with children: one ordinary, one in a session of its own, one whose parent has left."""

    def __init__(self, directory: Path) -> None:
        self._pids = directory / "pids"
        stay = f"echo $$ >> {shlex.quote(str(self._pids))}; exec sleep 600"
        child = shlex.quote(stay)
        self.cmd = (
            f"sh -c {child} & setsid sh -c {child} & (nohup setsid sh -c {child} >/dev/null &) ; {stay}"
        )
        self.size = 4

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self._pids.read_text().split()] if self._pids.exists() else []

    def wait_until_started(self, times: int = 1) -> list[int]:
        """The processes of the run that was started last."""
        wait_until(lambda: len(self.pids) == times * self.size, f"{times} tree(s) to stand")
        return self.pids[-self.size :]


@pytest.fixture
def process_tree(tmp_path: Path) -> ProcessTree:
    return ProcessTree(tmp_path)


def wait_until_ended(pids: list[int]) -> None:
    wait_until(lambda: not any(map(is_running, pids)), f"processes {pids} to end")


def test_marking_a_task_as_failed_ends_the_whole_process_tree(
    cluster: LocalAirflow, connection: str, process_tree: ProcessTree, mode: str
) -> None:
    dag_run = run(cluster, f"command{mode}", connection, process_tree.cmd)
    tree = process_tree.wait_until_started()
    dag_run.wait_for_task("remote", lambda task: bool(task["triggerer_job"]), DEADLINE)

    dag_run.set_task_state("remote", "failed")

    wait_until_ended(tree)
    assert dag_run.wait(DEADLINE) == "failed"
    assert len(process_tree.pids) == process_tree.size


def test_clearing_a_task_ends_the_whole_process_tree_and_starts_another(
    cluster: LocalAirflow, connection: str, process_tree: ProcessTree, mode: str
) -> None:
    dag_run = run(cluster, f"command{mode}", connection, process_tree.cmd)
    tree = process_tree.wait_until_started()
    dag_run.wait_for_task("remote", lambda task: bool(task["triggerer_job"]), DEADLINE)

    dag_run.clear_task("remote")

    wait_until_ended(tree)
    next_tree = process_tree.wait_until_started(times=2)
    dag_run.wait_for_task("remote", lambda task: bool(task["triggerer_job"]), DEADLINE)
    assert all(map(is_running, next_tree))
    dag_run.set_task_state("remote", "failed")
    wait_until_ended(next_tree)
