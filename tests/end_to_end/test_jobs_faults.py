"""What breaks while a deferred task's command runs: it runs once, and nothing of it is lost."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from local_airflow import DagRun, LocalAirflow
from tests.conftest import Serve
from tests.end_to_end.conftest import Connect, Triggerers
from tests.end_to_end.counted_command import CountedCommand
from tests.end_to_end.cut_network import CuttableNetwork
from tests.end_to_end.job_results import check_logged, logged_lines, result, xcom
from tests.end_to_end.waiting import DEADLINE, is_running, wait_until

pytestmark = pytest.mark.timeout(180)


class Task:
    """A deferred task with three commands, of which the second is the counted one, and running.

    The first and the last leave a line each in ``quick_runs``.
    """

    def __init__(
        self, airflow: LocalAirflow, dag_id: str, connection: str, command: CountedCommand, quick_runs: Path
    ) -> None:
        self.command = command
        self._quick_runs = quick_runs
        self._before, self._after = (f"echo {name} | tee -a {quick_runs}" for name in ("before", "after"))
        conf = {"before": self._before, "cmd": command.cmd, "after": self._after, "connection": connection}
        self.dag_run: DagRun = airflow.api.trigger(dag_id, conf)
        command.wait_until_started()
        self.wait_until_logged(3)

    def wait_until_logged(self, more: int = 0) -> None:
        """Wait until the log has so many lines of output more than the command has printed until now."""
        wanted = self.command.out.count("\n") + more

        def logged() -> bool:
            return len(set(logged_lines(self.dag_run.log("remote"), 2, "out"))) >= wanted

        wait_until(logged, f"{wanted} lines of output in the log")

    def check_that_it_goes_on(self) -> None:
        """The command was neither ended nor started again, and its output still comes to the log."""
        self.wait_until_logged(3)
        assert self.command.running
        assert len(self.command.pids) == 1
        assert self.dag_run.task("remote")["state"] == "deferred"

    def check_that_it_succeeds(self) -> None:
        """Let the command end, and check everything."""
        self.command.release()
        assert self.dag_run.wait(DEADLINE) == "success", self.dag_run.log("remote")
        assert self.dag_run.xcom("remote") == xcom(
            result(1, self._before, out="before\n"),
            result(2, self.command.cmd, out=self.command.out, err=self.command.err),
            result(3, self._after, out="after\n"),
        )
        assert len(self.command.pids) == 1
        assert self._quick_runs.read_text() == "before\nafter\n"
        assert self.dag_run.task("remote")["try_number"] == 1
        check_logged(self.dag_run, self.command, tid=2)


StartTask = Callable[[int], Task]


@pytest.fixture
def start_task(
    cluster: LocalAirflow,
    triggerers: Triggerers,
    connect_cluster: Connect,
    counted_command: CountedCommand,
    tmp_path: Path,
    mode: str,
) -> StartTask:
    def start(port: int) -> Task:
        connection = connect_cluster(port)
        return Task(cluster, f"three_steps{mode}", connection, counted_command, tmp_path / "quick_runs")

    return start


@pytest.fixture
def task(start_task: StartTask, serve: Serve) -> Task:
    return start_task(serve().port)


def test_a_triggerer_that_dies_with_all_its_processes_is_taken_over_from(
    task: Task, triggerers: Triggerers
) -> None:
    first = triggerers.of(task.dag_run)

    first.process.send_signal_to_all(signal.SIGKILL)
    first.process.wait(DEADLINE)

    triggerers.of(task.dag_run, other_than=first)
    task.check_that_it_goes_on()
    task.check_that_it_succeeds()


def test_a_triggerer_whose_supervisor_alone_dies_is_taken_over_from(
    task: Task, triggerers: Triggerers
) -> None:
    first = triggerers.of(task.dag_run)

    first.process.send_signal(signal.SIGKILL)  # its child, which runs the triggers, finds out
    first.process.wait(DEADLINE)

    triggerers.of(task.dag_run, other_than=first)
    task.check_that_it_goes_on()
    task.check_that_it_succeeds()


@pytest.mark.parametrize("everyone", [False, True], ids=["supervisor", "all its processes"])
def test_a_triggerer_that_is_restarted_leaves_the_command_running(
    task: Task, triggerers: Triggerers, everyone: bool
) -> None:
    first = triggerers.of(task.dag_run)

    # What ends a service may tell its main process alone, or each of them.
    (first.process.send_signal_to_all if everyone else first.process.send_signal)(signal.SIGTERM)
    assert first.process.wait(DEADLINE) == 0

    triggerers.of(task.dag_run, other_than=first)
    task.check_that_it_goes_on()
    task.check_that_it_succeeds()


def test_a_stalled_triggerer_that_wakes_up_beside_its_successor_kills_nothing(
    cluster: LocalAirflow, task: Task, triggerers: Triggerers
) -> None:
    first = triggerers.of(task.dag_run)

    first.process.send_signal_to_all(signal.SIGSTOP)
    triggerers.of(task.dag_run, other_than=first)
    task.check_that_it_goes_on()
    first.process.send_signal_to_all(signal.SIGCONT)

    path = f"dag_id={task.dag_run.dag_id}/run_id={task.dag_run.run_id}/**/*.trigger.{first.job_id}.log"
    (log,) = cluster.logs.glob(path)
    wait_until(lambda: "trigger completed" in log.read_text(), "the first triggerer to give the trigger up")
    task.check_that_it_goes_on()
    task.check_that_it_succeeds()


def test_a_server_that_is_killed_and_started_again_keeps_the_command(
    start_task: StartTask, serve: Serve, tmp_path: Path
) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    server = serve("", *state)
    task = start_task(server.port)

    server.kill()
    task.command.wait_until_it_prints(10)
    serve("", *state, "--port", str(server.port))

    task.check_that_it_goes_on()
    task.check_that_it_succeeds()


def test_a_network_that_is_silent_then_down_then_back_loses_nothing(
    start_task: StartTask, serve: Serve
) -> None:
    with CuttableNetwork(serve().port) as network:
        task = start_task(network.port)

        network.silence()
        task.command.wait_until_it_prints(30)
        network.reset()
        task.command.wait_until_it_prints(30)
        network.restore()

        task.check_that_it_goes_on()
        task.check_that_it_succeeds()


def test_a_command_that_ends_while_the_server_cannot_be_reached_is_not_run_again(
    start_task: StartTask, serve: Serve
) -> None:
    with CuttableNetwork(serve().port) as network:
        task = start_task(network.port)

        network.reset()
        task.command.release()
        wait_until(lambda: not task.command.running, "the command to end")
        network.restore()

        task.check_that_it_succeeds()


def test_a_task_cleared_while_no_triggerer_lives_ends_its_command_with_the_next_try(
    cluster: LocalAirflow, task: Task
) -> None:
    for triggerer in cluster.triggerers:
        triggerer.process.send_signal_to_all(signal.SIGKILL)
        triggerer.process.wait(DEADLINE)

    task.dag_run.clear_task("remote")
    cluster.start_triggerer()
    task.command.wait_until_started(times=2)

    assert [is_running(pid) for pid in task.command.pids] == [False, True]
    task.command.release()
    assert task.dag_run.wait(DEADLINE) == "success", task.dag_run.log("remote", 2)
    assert len(task.command.pids) == 2


@pytest.mark.parametrize("dag_id", ["mapped_tasks", "sixteen_tasks"])
def test_triggerers_killed_at_random_instants_never_make_a_command_run_twice(
    cluster: LocalAirflow,
    triggerers: Triggerers,
    connect_cluster: Connect,
    serve: Serve,
    tmp_path: Path,
    dag_id: str,
) -> None:
    """A worker starts mapped tasks; the others start in the triggerer, where Airflow can do that."""
    seed = random.randrange(1_000_000)
    print("seed", seed)
    instants = random.Random(seed)
    script = tmp_path / "numbered.sh"
    script.write_text(f'echo run >> "{tmp_path}/runs.$1"; sleep 2; echo "output of $1"')
    conf = {"connection": connect_cluster(serve().port), "cmd": f"sh {script}"}

    dag_run = cluster.api.trigger(dag_id, conf)
    for _ in range(4):
        time.sleep(instants.uniform(0.5, 5.0))
        instants.choice(cluster.triggerers).process.send_signal_to_all(signal.SIGKILL)
        cluster.start_triggerer()

    assert dag_run.wait(DEADLINE) == "success", seed
    runs = {path.suffix[1:]: path.read_text() for path in tmp_path.glob("runs.*")}
    assert runs == {str(number): "run\n" for number in range(16)}
    for number in range(16):
        if dag_id == "mapped_tasks":
            value = dag_run.xcom("remote", map_index=number)
        else:
            value = dag_run.xcom(f"remote_{number}")
        (entry,) = value["results"]
        assert (entry["rc"], entry["out"]) == (0, f"output of {number}\n")
