"""A server of the version before, replaced by this one while its jobs run."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from remsvc.client import Client, Job, JobSpec, JobState, OutputChunk
from remsvc.command import Command

from .conftest import HostWith
from .server_host import DEADLINE, ServerHost, wait_until

BEFORE = "9a15903"
"""The commit in whose layout supervisors run that this version has to speak with."""

ROOT = Path(__file__).parents[2]
CONFIG = "[jobs]\nmax_running = 4\n"


@pytest.fixture(scope="session")
def source_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package ``remsvc`` of that commit. It uses today's stubs: the wire is the same."""
    command = ["git", "archive", BEFORE, "src/remsvc"]
    try:
        archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("there is no git here")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no history with {BEFORE}: {error.stderr.decode(errors='replace').strip()}")
    folder = tmp_path_factory.mktemp("before")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder / "src"


class Watch:
    """Watches a job to its end in a thread, whatever happens to the server meanwhile."""

    def __init__(self, host: ServerHost, job: Job) -> None:
        self._host = host
        self._job = job
        self._output = {"stdout": b"", "stderr": b""}
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def stdout(self) -> bytes:
        """What it has been told of standard output so far."""
        return self._output["stdout"]

    def end(self) -> tuple[JobState, int | None, bytes, bytes]:
        """How the job has ended, and all that it has written."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the watch has not ended"
        if self._failure is not None:
            raise self._failure
        return (self._job.state, self._job.exit_code, *self._output.values())

    def _run(self) -> None:
        try:
            with self._host.client() as client:
                self._watch(client)
        except BaseException as error:  # noqa: BLE001  raised again in the test's thread
            self._failure = error

    def _watch(self, client: Client) -> None:
        for event in client.watch_job(self._job.id, timeout=DEADLINE):
            if isinstance(event, OutputChunk):
                assert event.offset == len(self._output[event.stream]), "no byte is lost, or comes twice"
                self._output[event.stream] += event.data
            else:
                self._job = event.job


def processes_running(source: Path) -> set[int]:
    """Pids of the processes that were started with a file of ``source``."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if any(str(source) in argument for argument in process.info["cmdline"] or ()):
            found.add(process.pid)
    return found


def answers(client: Client) -> list[str]:
    """What two version-1 commands print, sent over one stream."""
    return [
        result.out for result in client.run_many([Command("echo a"), Command("echo b")], timeout=DEADLINE)
    ]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_jobs_survive_an_upgrade(
    source_before: Path, host_with: HostWith, tmp_path: Path, killed: bool
) -> None:
    """What ran goes on, what has ended is known, what waits is started: by the supervisor that is there."""
    fifos = go, leave = [tmp_path / name for name in ("go", "leave")]
    for fifo in fifos:
        os.mkfifo(fifo)
    host = host_with(CONFIG, source=source_before)
    with host.client() as client:

        def create(name: str, text: str, stdin: bytes = b"") -> Job:
            return client.create_job(JobSpec(shell_command=text, standard_input=stdin, kill_grace=0.1), name)

        ended = create("ended", "echo before; echo err >&2; exit 3")
        before = Watch(host, ended).end()
        long = create("long", f"echo one; read line < {go}; echo two; cat; echo err >&2; exit 7", b"in\n")
        leaving = create("leaving", f"echo one; read line < {leave}; seq 5; exit 5")
        unwanted = [create(f"unwanted{n}", f"sleep {1000 + n} & exec sleep 1000") for n in range(2)]
        waiting = create("waiting", "echo waited")
        assert client.get_job(waiting.id).state is JobState.QUEUED
        watch = Watch(host, long)
        wait_until(lambda: watch.stdout == b"one\n", "a watch has begun")
        started = client.get_job(long.id)
        supervisors = host.supervisors()
        assert processes_running(source_before) >= supervisors, "it is the code of the version before"
        assert answers(client) == ["a\n", "b\n"]

    if killed:
        host.kill()
    else:
        assert host.stop() == 0
    leave.write_text("now\n")  # one ends while no server is there
    record = host.state_dir / "jobs" / leaving.id / "exit.json"
    wait_until(record.exists, "the end of a job is written down for the next server")
    host.source = None
    host.start()

    with host.client() as client:
        assert host.supervisors() == supervisors, "the jobs are those of the old version's supervisor"
        assert Watch(host, ended).end() == before == (JobState.FAILED, 3, b"before\n", b"err\n")
        assert Watch(host, leaving).end() == (JobState.FAILED, 5, b"one\n1\n2\n3\n4\n5\n", b"")
        assert Watch(host, waiting).end() == (JobState.SUCCEEDED, 0, b"waited\n", b"")
        for job in unwanted:
            client.cancel_job(job.id, reason="not needed")
            assert Watch(host, job).end()[0] is JobState.CANCELLED
        assert answers(client) == ["a\n", "b\n"]
        go.write_text("now\n")
        assert watch.end() == (JobState.FAILED, 7, b"one\ntwo\nin\n", b"err\n")
        assert client.get_job(long.id).started_at == started.started_at
        assert host.supervisors() == supervisors, "no other supervisor was started meanwhile"
