"""A worker's process under Airflow's own supervisor, for tests of how the one notices the other's end.

``python supervised_worker.py WORK FOLDER`` runs one of the functions below in the worker's process, writes
``worker`` with its id to the folder, and ``ended`` with its exit code when the supervisor has noticed that.
"""

from __future__ import annotations

import json
import os
import pty
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import psutil
from airflow.sdk.api.datamodels._generated import BundleInfo, TaskInstance, TIRunContext
from airflow.sdk.execution_time import supervisor, task_runner
from airflow.sdk.execution_time.comms import CommsDecoder

from remsvc_provider import prompt_exit

FOLDER = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()
HOLDER = "remsvc-prompt-exit"


def holders(process: int) -> list[int]:
    """The holders among the processes that it has started."""
    children = psutil.Process(process).children()
    return [child.pid for child in children if HOLDER in child.cmdline()]


def write(name: str, text: str) -> None:
    """Write a file of the folder; whoever sees it sees all of it."""
    whole = FOLDER / f"{name}.part"
    whole.write_text(text, encoding="utf-8")
    whole.rename(FOLDER / name)


def wait_for(name: str) -> None:
    """Wait until the test has made the file."""
    while not (FOLDER / name).exists():
        time.sleep(0.01)


def _ensure_here() -> None:
    """As an operator does; the names in Airflow are those of its task runner."""
    prompt_exit.ensure()
    write("ready", json.dumps(holders(os.getpid())))


def ends() -> None:
    """Has a holder, and ends when it is told to."""
    _ensure_here()
    wait_for("end")


def hangs() -> None:
    """Has a holder, and ends only when it is killed."""
    _ensure_here()
    threading.Event().wait()


def closes_early() -> None:
    """Has closed its sockets for a second when it ends: what chance does for some microseconds."""
    _ensure_here()
    wait_for("end")
    os.closerange(0, 1024)
    time.sleep(1)
    os._exit(0)


def closes_early_without() -> None:
    """The same without a holder."""
    os.environ["AIRFLOW__REMSVC__PROMPT_EXIT"] = "False"
    closes_early()


def under_sudo() -> None:
    """As with ``run_as_user``: what Airflow waits for is sudo, whose child does the task's work.

    This one ends a second later than its child, without its sockets.
    """
    child = os.fork()
    if child == 0:
        os.environ["_AIRFLOW__REEXECUTED_PROCESS"] = "1"
        _ensure_here()
        wait_for("end")
        os._exit(0)
    os.waitpid(child, 0)
    os.closerange(0, 1024)
    time.sleep(1)
    os._exit(0)


def leaves_a_fork() -> None:
    """Has started a process of its own which lives on."""
    _ensure_here()
    fork = os.fork()
    if fork == 0:
        threading.Event().wait()
    write("fork", str(fork))
    wait_for("end")


@contextmanager
def _standard_output(descriptor: int):  # type: ignore[no-untyped-def]
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def situations() -> None:
    """Where there is none, one after another, and then where there is one: asked for twice."""
    comms = task_runner.SUPERVISOR_COMMS
    in_process = supervisor.InProcessSupervisorComms(supervisor=None)  # type: ignore[arg-type]
    regular = os.open(FOLDER / "log", os.O_WRONLY | os.O_CREAT)
    found: dict[str, int] = {}

    def count(name: str) -> None:
        prompt_exit.ensure()
        found[name] = len(psutil.Process().children(recursive=True))

    for name, descriptor in (("file", regular), ("pipe", os.pipe()[1]), ("terminal", pty.openpty()[1])):
        with _standard_output(descriptor):
            count(name)
    with _standard_output(regular):
        os.close(1)
        count("closed")
    with mock.patch.dict(os.environ, AIRFLOW__REMSVC__PROMPT_EXIT="False"):
        count("off")
    with mock.patch.dict(os.environ, AIRFLOW__REMSVC__PROMPT_EXIT="perhaps"):
        count("neither on nor off")
    with mock.patch.object(task_runner, "SUPERVISOR_COMMS", in_process):
        count("dag.test()")
    with mock.patch.object(prompt_exit, "SHELL", str(FOLDER / "nothing")):
        count("no shell")
    with mock.patch.object(prompt_exit, "AFFECTED", ((9, 0), (9, 9))):
        count("unknown Airflow")
    assert task_runner.SUPERVISOR_COMMS is comms
    count("once")
    count("twice")
    write("found", json.dumps(found))


def _in_worker(work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        task_runner.SUPERVISOR_COMMS = CommsDecoder()
        try:
            work()
        except BaseException as error:
            write("error", repr(error))
            raise

    return run


def main() -> None:
    """Start the process, and say when its end was noticed."""
    task = {
        "id": uuid.uuid4(),
        "dag_version_id": uuid.uuid4(),
        "task_id": "remote",
        "dag_id": "dag",
        "run_id": "run",
        "try_number": 1,
        "map_index": -1,
        "hostname": "here",
        "queued_dttm": datetime.now(timezone.utc),
    }
    api_server = mock.MagicMock()
    started = TIRunContext.model_construct(should_retry=False, start_date=None, variables=[], connections=[])
    api_server.task_instances.start.return_value = started
    process = supervisor.ActivitySubprocess.start(
        what=TaskInstance.model_construct(**task),
        dag_rel_path="dag.py",
        bundle_info=BundleInfo(name="bundle", version=None),
        client=api_server,
        target=_in_worker(globals()[sys.argv[1]]),
    )
    write("worker", str(process.pid))
    code = process.wait()
    write("ended", str(int(code)))


if __name__ == "__main__":
    main()
