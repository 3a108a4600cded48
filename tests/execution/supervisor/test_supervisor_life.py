"""A supervisor that dies, cannot be started, or cannot be reached; and who else would like to reach it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import remsvc
from remsvc.errors import ExecutionError
from remsvc.execution.engine import ProcessSpec
from remsvc.execution.posix import PosixEngine
from remsvc.execution.supervisor.frames import FrameReader
from remsvc.execution.supervisor.link import SOCKET_NAME
from remsvc.execution.supervisor.protocol import Hello, read_event
from remsvc.job_state import JobState
from tests.execution.job_host import JobHost, program, shell
from tests.execution.processes import children, eventually, own_descriptors, processes_with, supervisors_of

CONNECT = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
folder = os.open(sys.argv[1], os.O_RDONLY)
connection.connect(f"/proc/self/fd/{folder}/supervisor.sock")
if sys.argv[3:] and os.fork():
    os._exit(0)
try:
    heard = f"heard {connection.recv(100)}"
except OSError as error:
    heard = str(error)
with open(f"{sys.argv[2]}.new", "w") as file:
    file.write(heard)
os.rename(f"{sys.argv[2]}.new", sys.argv[2])
"""


# What a server of version 1.1 starts its supervisors by.
EARLIER_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from remsvc.execution.supervisor import main; main(int(sys.argv[2]), *sys.argv[3:])"
)


def test_an_earlier_server_finds_it_where_it_was_before() -> None:
    """Its files were replaced while it runs: another supervisor that it needs is one of this version."""
    ours, theirs = socket.socketpair()
    root = str(Path(remsvc.__file__).resolve().parents[1])
    command = [sys.executable, "-I", "-S", "-c", EARLIER_BOOTSTRAP, root, str(theirs.fileno()), "", ""]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd="/", start_new_session=True) as process:
        theirs.close()
        with ours, ours.makefile("rb") as said:
            ours.settimeout(20)
            (size,) = struct.unpack("!I", said.read(4))
            ((header, _),) = FrameReader().feed(struct.pack("!I", size) + said.read(size))
            assert isinstance(read_event(header, []), Hello)
        assert process.wait(20) == 0, "it ends with the connection"


async def test_a_restart_that_finds_no_descriptor_is_tried_again(
    host: JobHost, caplog: pytest.LogCaptureFixture
) -> None:
    await host.run(shell("true"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (supervisor,) = host.supervisors()
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        os.kill(supervisor, signal.SIGKILL)
        await eventually(lambda: "trying again" in caplog.text, "it cannot be started")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    assert (await host.run(shell("echo again"))).stdout == b"again\n"


async def test_a_supervisor_that_dies_before_its_hello_leaves_no_command_unanswered() -> None:
    before = children(os.getpid())
    engine = PosixEngine()
    engine.launch()
    (supervisor,) = children(os.getpid()) - before
    os.kill(supervisor, signal.SIGSTOP)
    opening = asyncio.ensure_future(engine.open())
    try:
        while True:
            await asyncio.sleep(0.01)
            process = engine.start(ProcessSpec(("/bin/true",), {}, "/"))
            waiting = asyncio.ensure_future(process.wait())
            await asyncio.sleep(0)
            if not waiting.done():
                break
            assert waiting.exception()
        os.kill(supervisor, signal.SIGKILL)
        with pytest.raises(ExecutionError):
            await asyncio.wait_for(waiting, 10)
        with pytest.raises(ExecutionError):
            await opening
    finally:
        await engine.close()


async def test_a_removed_socket_costs_no_job(host: JobHost, duration: str) -> None:
    job = await host.create(shell(f"echo before; sleep {duration}"))
    await host.watch_until(job, b"before\n")
    (supervisor,) = host.supervisors()
    (host.path / SOCKET_NAME).unlink()
    await host.reopen()
    assert host.supervisors() == {supervisor}
    for pid in processes_with(duration):
        os.kill(pid, signal.SIGTERM)
    ended = await host.ended(job)
    assert (ended.state, ended.exit_code) == (JobState.FAILED, 128 + signal.SIGTERM)
    assert ended.stdout.total == len(b"before\n")


@pytest.mark.parametrize("time_limit", [None, 600.0])
async def test_a_socket_removed_while_no_server_is_there_comes_back(
    host: JobHost, duration: str, time_limit: float | None
) -> None:
    await host.create(program("/bin/sleep", duration, time_limit=time_limit))
    await eventually(lambda: processes_with(duration), "it runs")
    (supervisor,) = host.supervisors()
    await host.close()
    for _ in range(2):  # the first time, the supervisor may not have seen yet that the server has gone
        (host.path / SOCKET_NAME).unlink()
        await eventually((host.path / SOCKET_NAME).exists, "the socket is there again")
    await host.open()
    assert host.supervisors() == {supervisor}


async def test_one_that_is_stuck_holds_up_nothing_for_long(host: JobHost, duration: str) -> None:
    """A connection to it has a deadline, and leaks nothing."""
    await host.create(shell(f"sleep {duration}"))
    await eventually(lambda: processes_with(duration), "it runs")
    await host.close()
    (supervisor,) = host.supervisors()
    os.kill(supervisor, signal.SIGSTOP)
    others = list(waiting_in_line(host.path))
    descriptors = own_descriptors()
    engine = PosixEngine(host.path)
    try:
        opening = asyncio.ensure_future(engine.open())
        await asyncio.sleep(0.1)  # some tries to connect
        assert not opening.done()
        opening.cancel()
        await asyncio.wait([opening], timeout=10)
        assert opening.cancelled()
        await engine.close()
        # asyncio closes a connection in its next turn.
        await eventually(lambda: own_descriptors() <= descriptors, "nothing is left open")
    finally:
        for other in others:
            other.close()
        os.kill(supervisor, signal.SIGCONT)
        await host.open()


def waiting_in_line(folder: Path) -> Iterator[socket.socket]:
    """Connections that a supervisor does not take, as many as the system lets wait."""
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            connection.connect(str(folder / SOCKET_NAME))
        except BlockingIOError:
            connection.close()
            return
        yield connection


@pytest.mark.parametrize("hides", [(), ("left",)], ids=["a command", "one that its parent left"])
async def test_a_command_is_not_taken_for_a_server(
    host: JobHost, tmp_path: Path, hides: tuple[str, ...]
) -> None:
    told = tmp_path / "told"
    await host.run(program(sys.executable, "-c", CONNECT, str(host.path), str(told), *hides))
    await eventually(told.exists, "it has been told something, or nothing")
    assert "hello" not in told.read_text()
    assert "refused" in told.read_text()
    assert (await host.run(shell("echo still here"))).stdout == b"still here\n"
    assert len(supervisors_of(host.path)) == 1


SERVE = """
import asyncio, sys
from pathlib import Path
from remsvc.errors import ExecutionError
from remsvc.execution.posix import PosixEngine
try:
    asyncio.run(PosixEngine(Path(sys.argv[1])).open())
except ExecutionError as error:
    print("refused:", error)
"""


async def test_a_server_that_a_job_starts_costs_no_job(host: JobHost, duration: str, tmp_path: Path) -> None:
    """It is refused, as whatever comes from a command, and starts no second supervisor beside the first."""
    job = await host.create(shell(f"sleep {duration}"))
    go, told = tmp_path / "go", tmp_path / "told"
    words = f"'{sys.executable}' -c '{SERVE}' '{host.path}' > '{told}.part' 2>&1; mv '{told}.part' '{told}'"
    starter = await host.create(
        shell(
            f"while ! [ -e '{go}' ]; do sleep 0.05; done; {words}",
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
    )
    (supervisor,) = host.supervisors()
    await host.close()
    go.touch()
    await eventually(told.exists, "it was tried")
    assert "start the server by other means" in told.read_text()
    await host.open()
    assert host.supervisors() == {supervisor}
    assert (await host.ended(starter)).state is JobState.SUCCEEDED
    found = await host.jobs.get(job.id)
    assert found is not None
    assert found.state is JobState.RUNNING
