"""From nothing to a finished DAG: ``make demo``.

Makes certificates, a token and a configuration, starts a server that they protect and a real
Airflow, runs the example DAG and shows what came back. Everything lives in a temporary directory
and listens on 127.0.0.1 only; everything is stopped at the end, however the end comes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from local_airflow import ApiError, DagRun, LocalAirflow, StartupError, end_children
from secured_server import SecuredServer

DAGS = Path(__file__).resolve().parents[1] / "examples" / "dags"
DAG_ID = "remote_commands"
RUN_TIMEOUT = 120.0
OUTPUT_LINES = 12


class DemoError(Exception):
    """Something did not work as it should."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run an example DAG in a real Airflow against a real server."
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave everything running, and say how to stop it"
    )
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if parser.parse_args().keep:
        return run_in_background()
    return run(finish=lambda airflow: None)


def run(finish: Callable[[LocalAirflow], None]) -> int:
    """The whole demo.

    Args:
        finish: called when all has worked, while everything still runs.

    Returns:
        The exit code.
    """
    home = Path(tempfile.mkdtemp(prefix="remsvc-demo-"))
    signals = StopSignals()
    try:
        with ExitStack() as stack:
            try:
                demonstrate(home, stack, finish)
            finally:
                signals.ignore()  # stopping must not be interrupted
                heading("Stopping everything")
    except Interrupted as interruption:
        print(f"stopped, because of {interruption}")
        shutil.rmtree(home, ignore_errors=True)
        return 128 + interruption.number
    except (DemoError, StartupError, ApiError, TimeoutError) as error:
        print(f"stopped. The logs are in {home}", flush=True)
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        end_children()
    print("stopped")
    shutil.rmtree(home)
    return 0


def demonstrate(home: Path, stack: ExitStack, finish: Callable[[LocalAirflow], None]) -> None:
    started = time.monotonic()

    heading("remsvc init: a certificate authority, a server certificate, a token, a configuration")
    server = SecuredServer(home / "server")
    print(f"made in {home / 'server'}")

    heading("remsvc serve")
    stack.enter_context(server)
    print(f"listening on {server.target} with TLS, for callers with the token")

    heading(f"Airflow {version('apache-airflow')}: scheduler, DAG processor, triggerer, API server")
    connection = {"AIRFLOW_CONN_REMSVC_DEFAULT": server.connection}
    airflow = stack.enter_context(LocalAirflow(home / "airflow", DAGS, connection))
    print(f"ready after {time.monotonic() - started:.0f} s, in {airflow.home}")
    print(f"UI: {airflow.url} (user {airflow.username}, password {airflow.password})")
    print(f"connection remsvc_default: {server.masked_connection}")

    airflow.wait_for_dag(DAG_ID)
    heading(f"A run of the DAG {DAG_ID}")
    dag_run = airflow.api.trigger(DAG_ID)
    follow(dag_run)

    heading("What came back")
    show_results(dag_run)
    print(f"\nAll of it worked, after {time.monotonic() - started:.0f} s. The UI was at {dag_run.url}")
    finish(airflow)


def follow(dag_run: DagRun) -> None:
    """Print the states of the run and its tasks as they change, until it has ended.

    Raises:
        DemoError: it failed; with the logs of the tasks that did.
    """
    started = time.monotonic()
    before: dict[str, str] = {}
    for states in dag_run.watch(RUN_TIMEOUT):
        for name, state in states.items():
            if state != before.get(name):
                print(f"{time.monotonic() - started:5.1f} s  {name or 'the run':14} {state}", flush=True)
        before = states
    if before[""] != "success":
        failed = [name for name, state in before.items() if name and state == "failed"]
        logs = "\n".join(f"--- log of {task_id}:\n{dag_run.log(task_id)}" for task_id in failed)
        raise DemoError(f"the run ended as {before['']}\n{logs}")


def show_results(dag_run: DagRun) -> None:
    """Print each command's output, and what the validating task said.

    Raises:
        DemoError: a result is missing, or not that of a command that succeeded.
    """
    results = dag_run.xcom("run_commands")["results"]
    if len(results) != 5 or any(result["rc"] != 0 for result in results):
        raise DemoError(f"expected five results with rc 0, not {results}")
    for result in results:
        print(f"$ {result['cmd']}  (rc {result['rc']})")
        lines = result["out"].splitlines()
        for line in lines[:OUTPUT_LINES]:
            print(f"  {line}")
        if len(lines) > OUTPUT_LINES:
            print(f"  ... {len(lines) - OUTPUT_LINES} more lines")
    print(f"\nvalidated: {dag_run.xcom('validate')}")


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


# --- Ends ------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """A signal asked the demo to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopSignals:
    """Turns the first signal that asks to stop into :class:`Interrupted`, and ignores further ones."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        for number in self.NUMBERS:
            signal.signal(number, self._interrupt)

    def ignore(self) -> None:
        for number in self.NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.ignore()
        raise Interrupted(number)


def run_in_background() -> int:
    """Run the demo in a process of its own, which stays behind and ends everything when it is told to.

    Returns:
        The exit code, once the demo has failed, or has worked and only waits for its end.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.setsid()
        os._exit(run_and_stay(writer))
    os.close(writer)
    for number in StopSignals.NUMBERS:
        signal.signal(number, lambda number, frame: os.kill(pid, signal.SIGTERM))
    with open(reader, "rb") as pipe:  # noqa: PTH123 - a descriptor
        if pipe.read():
            return 0
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_and_stay(writer: int) -> int:
    def stay(airflow: LocalAirflow) -> None:
        heading("Everything is left running")
        print(f"UI: {airflow.url} (user {airflow.username}, password {airflow.password})")
        print(f"stop it: kill {os.getpid()}", flush=True)
        with (airflow.home.parent / "demo.log").open("ab") as log:
            for descriptor in (0, 1, 2):
                os.dup2(log.fileno(), descriptor)
        os.write(writer, b"running\n")
        os.close(writer)
        while True:
            signal.pause()

    code = run(finish=stay)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
