"""The operator in a real Airflow: real scheduler, real triggerer, real server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent import futures
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import pytest

from local_airflow import ApiError, DagRun, LocalAirflow, free_port
from remsvc.client import Client, ConnectionOptions
from remsvc.client.jobs import JobSpec, JobState
from remsvc.command import crc32hex
from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from tests.conftest import Serve, ServerProcess
from tests.end_to_end.conftest import MODES, Connect, LongCommand
from tests.end_to_end.waiting import DEADLINE

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("", "--cmd-timeout-ms", "3600000")


@pytest.fixture(scope="module")
def connection(server: ServerProcess, connect: Connect) -> str:
    return connect(server.port)


def run(airflow: LocalAirflow, dag_id: str, connection: str, cmd: str = "true") -> DagRun:
    return airflow.api.trigger(dag_id, {"connection": connection, "cmd": cmd})


def trigger_logs(airflow: LocalAirflow, run: DagRun) -> list[Path]:
    """The files in which a triggerer logged for the run: evidence that one took part."""
    return list(airflow.logs.glob(f"dag_id={run.dag_id}/run_id={run.run_id}/**/*.trigger.*.log"))


def deferred(task: dict[str, Any]) -> bool:
    return bool(task["state"] == "deferred")


def test_commands_run_through_the_triggerer_and_their_results_come_back(
    airflow: LocalAirflow, connection: str
) -> None:
    dag_run = run(airflow, "twelve_commands", connection)

    assert dag_run.wait(DEADLINE) == "success", dag_run.log("remote")

    today = dag_run.run_id.removeprefix("manual__")[: len("2000-01-01")]
    assert date.fromisoformat(today)
    assert dag_run.xcom("remote") == {
        "state": "SUCCESS",
        "results": [
            {
                "tid": tid,
                "rc": 0,
                "out": f"{tid} on {today}\n",
                "err": "",
                "hsh": crc32hex(f"echo {tid} on {today}"),
                "cmd": f"echo {tid} on {today}",
            }
            for tid in range(1, 13)
        ],
        "error_msg": None,
    }
    assert trigger_logs(airflow, dag_run)


def test_the_log_tells_what_ran_where_and_how_it_ended(
    airflow: LocalAirflow, server: ServerProcess, connection: str
) -> None:
    dag_run = run(airflow, "command", connection, "echo to be read")

    assert dag_run.wait(DEADLINE) == "success", dag_run.log("remote")

    log = dag_run.log("remote")
    for text in (server.target, "echo to be read", "rc 0", "1 out | to be read"):
        assert text in log


def test_without_deferring_the_worker_runs_the_commands(airflow: LocalAirflow, connection: str) -> None:
    dag_run = run(airflow, "command_in_worker", connection, "echo here")

    assert dag_run.wait(DEADLINE) == "success", dag_run.log("remote")

    (result,) = dag_run.xcom("remote")["results"]
    assert (result["tid"], result["rc"], result["out"]) == (1, 0, "here\n")
    assert not trigger_logs(airflow, dag_run)


def test_a_command_that_fails_fails_the_task_and_is_named(airflow: LocalAirflow, connection: str) -> None:
    dag_run = run(airflow, "three_commands", connection)

    assert dag_run.wait(DEADLINE) == "failed"

    log = dag_run.log("remote")
    assert "command 2 (commands[1]) ended with rc 3: broken" in log
    assert "also fine" in log


def test_a_missing_answer_fails_the_task_and_is_named(
    airflow: LocalAirflow, connect: Connect, forgetful_server: int
) -> None:
    dag_run = run(airflow, "three_commands", connect(forgetful_server))

    assert dag_run.wait(DEADLINE) == "failed"

    assert "without an answer to command 2 (commands[1])" in dag_run.log("remote")


def test_a_server_that_comes_up_late_is_waited_for_and_runs_the_command_once(
    airflow: LocalAirflow, connect: Connect, serve: Serve, tmp_path: Path
) -> None:
    port = free_port()
    trace = tmp_path / "trace"
    dag_run = run(airflow, "command_with_retries", connect(port), f"echo ran >> {trace}")
    dag_run.wait_for_task("remote", lambda _: "nothing was sent" in logs(dag_run), DEADLINE)

    serve("", "--port", str(port))

    assert dag_run.wait(DEADLINE) == "success", logs(dag_run)
    assert trace.read_text() == "ran\n"


def test_a_version_1_server_killed_midway_fails_the_task_and_nothing_runs_twice(
    airflow: LocalAirflow, connect: Connect, serve: Serve, long_command: LongCommand
) -> None:
    server = serve("[jobs]\nenabled = false\n", "--cmd-timeout-ms", "3600000")
    dag_run = run(airflow, "command", connect(server.port), long_command.cmd)
    long_command.wait_until_started()

    server.kill()
    again = serve("", "--port", str(server.port))

    assert dag_run.wait(DEADLINE) == "failed"
    assert "not retried to prevent duplicate execution" in dag_run.log("remote")
    long_command.wait_until_ended()
    assert len(long_command.pids) == 1
    assert again.process.poll() is None


def test_an_exceeded_stream_timeout_ends_the_command_and_the_task_without_a_retry(
    airflow: LocalAirflow, connection: str, tmp_path: Path
) -> None:
    commands = {mode: LongCommand(tmp_path / f"trace{mode}") for mode in MODES}
    dag_runs = {
        mode: run(airflow, f"short_stream_timeout{mode}", connection, command.cmd)
        for mode, command in commands.items()
    }

    for mode, dag_run in dag_runs.items():
        assert dag_run.wait(DEADLINE) == "failed"

        assert dag_run.task("remote")["try_number"] == 1
        assert "stream_timeout of 8 s exceeded" in dag_run.log("remote")
        commands[mode].wait_until_ended()
        assert len(commands[mode].pids) == 1


def test_an_exceeded_execution_timeout_ends_the_command_and_a_retry_runs_it_again(
    airflow: LocalAirflow, connection: str, tmp_path: Path
) -> None:
    commands = {mode: LongCommand(tmp_path / f"trace{mode}") for mode in MODES}
    dag_runs = {
        mode: run(airflow, f"short_execution_timeout{mode}", connection, command.cmd)
        for mode, command in commands.items()
    }

    for mode, dag_run in dag_runs.items():
        assert dag_run.wait(DEADLINE) == "failed"

        for number in (1, 2):
            log = dag_run.log("remote", number)
            # Of a task that started in the triggerer, Airflow itself watches the time as well.
            assert "execution_timeout of 8 s exceeded" in log or "timed out" in log, log
        commands[mode].wait_until_ended(times=2)
        assert len(commands[mode].pids) == 2


def test_marking_a_task_as_failed_ends_its_command(
    airflow: LocalAirflow, connection: str, long_command: LongCommand, mode: str
) -> None:
    dag_run = run(airflow, f"command{mode}", connection, long_command.cmd)
    long_command.wait_until_started()
    dag_run.wait_for_task("remote", deferred, DEADLINE)

    dag_run.set_task_state("remote", "failed")

    long_command.wait_until_ended()
    assert dag_run.wait(DEADLINE) == "failed"
    assert len(long_command.pids) == 1


def test_clearing_a_task_ends_its_command_and_starts_it_again(
    airflow: LocalAirflow, connection: str, long_command: LongCommand, mode: str
) -> None:
    dag_run = run(airflow, f"command{mode}", connection, long_command.cmd)
    long_command.wait_until_started()
    dag_run.wait_for_task("remote", deferred, DEADLINE)

    dag_run.clear_task("remote")

    long_command.wait_until_ended(times=1)
    long_command.wait_until_started(times=2)
    dag_run.set_task_state("remote", "failed")
    long_command.wait_until_ended(times=2)


def test_a_durable_retry_takes_over_what_has_succeeded_and_a_clear_starts_afresh(
    airflow: LocalAirflow, connection: str, tmp_path: Path
) -> None:
    traces = {mode: tmp_path / f"trace{mode}" for mode in MODES}
    dag_runs = {}
    for mode, trace in traces.items():
        conf = {"before": f"echo a >> {trace}; echo a", "cmd": f"echo b >> {trace}; exit 3"}
        dag_runs[mode] = airflow.api.trigger(f"durable_steps{mode}", {"connection": connection, **conf})

    for mode, dag_run in dag_runs.items():
        assert dag_run.wait(DEADLINE) == "failed", logs(dag_run)
        assert traces[mode].read_text().split() == ["a", "b", "b"], logs(dag_run)
        assert "Command 1 is taken over from try 1" in dag_run.log("remote", 2)
        dag_run.clear_task("remote")

    for mode, dag_run in dag_runs.items():
        dag_run.wait_for_task(
            "remote", lambda task: task["try_number"] == 4 and task["state"] == "failed", DEADLINE
        )
        assert traces[mode].read_text().split() == ["a", "b", "b", "a", "b", "b"], logs(dag_run)
        assert "is taken over" not in dag_run.log("remote", 3)
        assert "Command 1 is taken over from try 3" in dag_run.log("remote", 4)


def test_clearing_a_task_of_an_ended_run_ends_what_still_runs_of_it_first(
    airflow: LocalAirflow, connection: str, server: ServerProcess, tmp_path: Path
) -> None:
    """Airflow starts the run over, with another start date. What runs here stands for a job whose trigger
    was never told that its task had ended. The first result is gone with it, too."""
    dag_runs = {
        mode: run(airflow, f"command{mode}", connection, f"mkdir {tmp_path}/once{mode}") for mode in MODES
    }
    ended, left = {}, {}
    with Client(ConnectionOptions(server.target)) as client:
        for mode, dag_run in dag_runs.items():
            assert dag_run.wait(DEADLINE) == "success", logs(dag_run)
            assert dag_run.xcom("remote")["state"] == "SUCCESS"
            (ended[mode],) = client.list_jobs(labels={"airflow_run_id": dag_run.run_id})
            spec = JobSpec(shell_command="sleep 300", labels=ended[mode].spec.labels)
            left[mode] = client.create_job(spec, f"left behind{mode}")
            dag_run.clear_task("remote")

        for mode, dag_run in dag_runs.items():
            dag_run.wait_for_task(
                "remote", lambda task: task["try_number"] == 2 and task["state"] == "failed", DEADLINE
            )
            with pytest.raises(ApiError, match="HTTP 404"):
                dag_run.xcom("remote")
            assert client.get_job(left[mode].id).state is JobState.CANCELLED, logs(dag_run)
            assert client.get_job(left[mode].id).reason == "Airflow started try 2"
            second, *_ = client.list_jobs(labels={"airflow_run_id": dag_run.run_id})
            assert second.spec.labels["airflow_try_number"] == "2"
            started = [job.spec.labels["airflow_run_started"] for job in (ended[mode], second)]
            assert started[0] < started[1], "this is what the test is about"


@pytest.fixture
def forgetful_server() -> Iterator[int]:
    """A server that leaves out the answer to every command with an even number."""

    class Forgetful(RemSvc_pb2_grpc.RemSvcServicer):
        def RemCmdStrm(
            self, requests: Iterable[RemSvc_pb2.RemCmdMsg], context: grpc.ServicerContext
        ) -> Iterator[RemSvc_pb2.RemResMsg]:
            for request in requests:
                if request.tid % 2:
                    yield RemSvc_pb2.RemResMsg(tid=request.tid, hsh=request.hsh)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    RemSvc_pb2_grpc.add_RemSvcServicer_to_server(Forgetful(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def logs(dag_run: DagRun) -> str:
    """The task's logs of all its tries so far."""
    tries = dag_run.task("remote")["try_number"]
    return "\n".join(dag_run.log("remote", number) for number in range(1, tries + 1))
