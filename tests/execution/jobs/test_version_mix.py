"""A server of one version, and the supervisor that one of another version left: real processes both."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remsvc.errors import ExecutionError
from remsvc.execution.engine import ProcessSpec
from remsvc.execution.posix import PosixEngine
from remsvc.execution.supervisor.link import SOCKET_NAME
from remsvc.execution.supervisor.protocol import MARK, VERSION, DurableJob
from remsvc.job_state import JobState
from tests.execution.job_host import JobHost, shell
from tests.execution.processes import eventually

from .test_jobs import lines

START = Callable[..., "OtherSupervisor"]


class OtherSupervisor:
    """A supervisor of another version, and the server that started it: this object."""

    def __init__(self, state_dir: Path, version: int, said: str) -> None:
        self.server, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.execution.other_supervisor"),
                    *(str(theirs.fileno()), str(state_dir), str(version), said),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).parents[3],
                start_new_session=True,
            )

    async def listens(self, state_dir: Path) -> None:
        await eventually((state_dir / SOCKET_NAME).exists, "the supervisor listens")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        self.server.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def supervisor_of(tmp_path: Path) -> Iterator[START]:
    """``supervisor_of(version, "more")`` starts one in ``tmp_path / "state"``."""
    started: list[OtherSupervisor] = []
    (tmp_path / "state").mkdir(0o700)

    def start(version: int, said: str) -> OtherSupervisor:
        started.append(OtherSupervisor(tmp_path / "state", version, said))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.end()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        pytest.param(VERSION - 1, "fewer", id="an older one, which says less"),
        pytest.param(VERSION, "fewer", id="one that says less"),
        pytest.param(VERSION, "more", id="a newer one, which says and hears more"),
    ],
)
async def test_jobs_of_another_versions_supervisor(
    supervisor_of: START, tmp_path: Path, version: int, said: str
) -> None:
    """They run, are watched, cancelled and found again, as with the server's own."""
    other = supervisor_of(version, said)
    host = JobHost(tmp_path / "state")
    await other.listens(host.path)
    await host.open()
    log, go = tmp_path / "log", tmp_path / "go"
    os.mkfifo(go)
    try:
        watched = await host.run(shell(f"echo once >> {log}; cat; echo err >&2; exit 7"), stdin=b"in")
        assert (watched.stdout, watched.stderr) == (b"in", b"err\n")
        assert (watched.job.state, watched.job.exit_code) == (JobState.FAILED, 7)
        assert (await host.run(shell("no-such-dir", cwd="/no/such/dir"))).job.state is JobState.FAILED
        outcome = await host.jobs.engine.start(
            ProcessSpec(("/bin/sh", "-c", "echo old"), {"PATH": os.environ["PATH"], MARK: "test"}, "/")
        ).wait()
        assert (outcome.exit_code, outcome.stdout.head) == (0, b"old\n")

        long = await host.create(shell(f"echo once >> {log}; echo one; read line < {go}; echo two"))
        await host.watch_until(long, b"one\n")
        idle = await host.create(shell("sleep 1000"))
        await host.reopen()  # another server of this version
        assert other.alive
        await host.jobs.cancel(idle, "not needed", kill=True)
        assert (await host.ended(idle)).state is not JobState.LOST
        watching = asyncio.ensure_future(host.watch(long))
        await asyncio.to_thread(go.write_text, "now\n")
        ended = await watching
        assert (ended.job.state, ended.stdout) == (JobState.SUCCEEDED, b"one\ntwo\n")
        assert lines(log) == ["once"] * 2

        last = await host.create(shell(f"read line < {go}; exit 3"))
        await host.close()  # it ends while no server is there
        await asyncio.to_thread(go.write_text, "now\n")
        await asyncio.to_thread(other.process.wait, 30)
        await host.open()
        found = await host.ended(last)
        assert (found.state, found.exit_code) == (JobState.FAILED, 3)
    finally:
        await host.end()


async def test_a_supervisor_too_new_is_refused_and_left_alone(supervisor_of: START, tmp_path: Path) -> None:
    """An older server says why it does not start, and the jobs go on for the next one that can."""
    other = supervisor_of(VERSION + 1, "more")
    host = JobHost(tmp_path / "state")
    await other.listens(host.path)
    log, go = tmp_path / "log", tmp_path / "go"
    os.mkfifo(go)
    argv = ("/bin/sh", "-c", f"echo started >> {log}; read line < {go}; echo ended >> {log}")
    process = ProcessSpec(argv, {"PATH": os.environ["PATH"], MARK: "job"}, "/")
    durable = DurableJob(tmp_path / "state/jobs/job", kill_grace=0.0, stdin=False)
    other.server.sendall(PosixEngine().start_order("job", process, job=durable).encode())
    await eventually(log.exists, "a job of the newer version runs")
    for _ in range(2):
        expected = rf"later version of RemSvc \(messages {VERSION + 1}, known: {VERSION}\); jobs go on"
        with pytest.raises(ExecutionError, match=expected):
            await host.open()
        await host.close()
    assert other.alive
    assert lines(log) == ["started"]
    await asyncio.to_thread(go.write_text, "now\n")
    await asyncio.to_thread(other.process.wait, 30)
    assert lines(log) == ["started", "ended"]
    assert await host.open()  # it has nothing left to do, and ended: nobody is in the way
    await host.end()
