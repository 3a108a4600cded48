"""The process that has Airflow notice at once that a worker's process has ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a holder is started on Linux only")

PROGRAM = Path(__file__).parent / "supervised_worker.py"
DEADLINE = 60.0
LATE = 40
"""Seconds after which Airflow looks again when it has missed an end."""


class Worker:
    """A worker's process, and the supervisor that has started it."""

    def __init__(self, work: str, folder: Path, *wrapper: str) -> None:
        self.folder = folder
        self.log = (folder / "output").open("wb")
        settings = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": str(LATE), "TASK_SECRET": "s3cret"}
        self.supervisor = subprocess.Popen(
            [*wrapper, sys.executable, str(PROGRAM), work, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **settings},
            start_new_session=True,
        )

    def read(self, name: str) -> str:
        """What it has written; waits for it."""
        deadline = time.monotonic() + DEADLINE
        while not (self.folder / name).exists():
            told = (self.folder / "output").read_text()
            assert not (self.folder / "error").exists(), (self.folder / "error").read_text()
            assert time.monotonic() < deadline, f"no {name}: {told}"
            time.sleep(0.02)
        return (self.folder / name).read_text()

    def tell(self, name: str) -> None:
        """Make the file that it waits for."""
        (self.folder / name).touch()

    @property
    def process(self) -> psutil.Process:
        """The worker's process."""
        return psutil.Process(int(self.read("worker")))

    @property
    def holder(self) -> psutil.Process:
        """Its only holder."""
        (holder,) = json.loads(self.read("ready"))
        return psutil.Process(holder)

    def close(self) -> None:
        """Leave nothing of it."""
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.supervisor.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self.supervisor.kill()
        self.supervisor.wait()
        self.log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker that does one of the works of ``supervised_worker.py``."""
    workers: list[Worker] = []

    def start(work: str, *wrapper: str) -> Worker:
        workers.append(Worker(work, tmp_path, *wrapper))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def gone(process: psutil.Process) -> bool:
    """Whether it has ended within the deadline, be it reaped or not."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("work", ["closes_early", "under_sudo"])
def test_the_end_is_noticed_though_the_sockets_were_closed_before_it(work: str, start: Callable[..., Worker]):
    worker = start(work)
    holder = worker.holder
    worker.tell("end")
    told = time.monotonic()
    assert worker.read("ended") == "0"
    assert time.monotonic() - told < LATE / 2  # after a second; without a holder after LATE
    assert gone(holder)


def test_without_a_holder_airflow_misses_that_end(start: Callable[..., Worker]):
    # Where this fails, Airflow does without: prompt_exit.AFFECTED is to end before that version.
    worker = start("closes_early_without")
    assert worker.read("ready") == "[]"
    process = worker.process
    worker.tell("end")
    assert gone(process)
    time.sleep(1)  # with a holder, it is told at once
    assert not (worker.folder / "ended").exists()


def _end(worker: Worker) -> None:
    worker.tell("end")


def _terminate_group(worker: Worker) -> None:
    os.killpg(os.getpgid(worker.process.pid), signal.SIGTERM)


def _kill_supervisor_first(worker: Worker) -> None:
    process = worker.process
    worker.supervisor.kill()
    worker.supervisor.wait()
    process.kill()


def _kill_with_a_look_at_the_holder(worker: Worker) -> None:
    _has_nothing_but_the_standard_output(worker)
    worker.process.kill()


@pytest.mark.parametrize(
    ("work", "end"),
    [
        ("ends", _end),
        ("hangs", _kill_with_a_look_at_the_holder),
        ("hangs", _terminate_group),
        ("hangs", _kill_supervisor_first),
    ],
)
def test_the_holder_ends_with_the_worker(
    work: str, end: Callable[[Worker], None], start: Callable[..., Worker]
):
    worker = start(work)
    holder = worker.holder
    assert holder.ppid() == worker.process.pid
    end(worker)
    assert gone(holder)


def test_the_holder_waits_for_no_fork_of_the_worker(start: Callable[..., Worker]):
    worker = start("leaves_a_fork")
    holder, fork = worker.holder, psutil.Process(int(worker.read("fork")))
    try:
        worker.tell("end")
        assert gone(holder)
        assert fork.is_running()
    finally:
        fork.kill()


def _has_nothing_but_the_standard_output(worker: Worker) -> None:
    holder = worker.holder
    descriptors = {int(path.name): path.readlink() for path in Path(f"/proc/{holder.pid}/fd").iterdir()}
    # Of the worker: its standard output, and the end of a pipe that brings nothing.
    assert descriptors.pop(1) == Path(f"/proc/{worker.process.pid}/fd/1").readlink()
    assert str(descriptors.pop(0)).startswith("pipe:")
    assert {str(path) for path in descriptors.values()} == {"/dev/null"}
    assert holder.cwd() == "/"
    assert "s3cret" not in str(holder.environ())
    assert holder.terminal() is None
    # A signal to the worker's process group does not reach it, nor does one to the session.
    assert os.getsid(holder.pid) == os.getpgid(holder.pid) == holder.pid
    assert holder.memory_info().rss < 8_000_000


def test_where_there_is_one(start: Callable[..., Worker]):
    worker = start("situations")
    found = json.loads(worker.read("found"))
    assert found == {
        "file": 0,
        "pipe": 0,
        "terminal": 0,
        "closed": 0,
        "off": 0,
        "neither on nor off": 0,
        "dag.test()": 0,
        "no shell": 0,
        "unknown Airflow": 0,
        "once": 1,
        "twice": 1,
    }
    assert worker.read("ended") == "0"
    assert "prompt_exit is 'perhaps'" in (worker.folder / "output").read_text()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
@pytest.mark.parametrize(("init", "count"), [((), 0), (("sh", "-c", '"$@"; exit $?', "sh"), 1)])
def test_only_where_somebody_reaps_it(init: tuple[str, ...], count: int, start: Callable[..., Worker]):
    worker = start("ends", "unshare", "--fork", "--pid", "--mount-proc", *init)
    assert len(json.loads(worker.read("ready"))) == count
