"""All that one caller with a token does at a time, and what another one notices of it.

How long that one waits is measured here because it is what is promised: a call that is held up by somebody
else waits for most of a minute, or for ever. What is allowed is more than a busy machine needs, and less than
that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import psutil
import pytest

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from tests.attacks.conftest import AUTH, METADATA
from tests.attacks.neighbours import NEIGHBOURS
from tests.conftest import DEADLINE, Serve, ServerProcess
from tests.execution.hanging_files import hanging_mount, leased_program

pytestmark = pytest.mark.own_http2

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("REMSVC_FUZZ_SECONDS", "5"))
_PATIENCE = 8.0
_GROWTH = 300 * 2**20
_TOKEN = "a-bad-neighbour-s-own-token-0123456789"
_CONFIG = f"""{AUTH}bad = {_TOKEN}
[identity bad]
deny.some = ^forbidden
max_running = 100
max_queued = 200
[audit]
file = %s
[log]
level = error
"""


@contextmanager
def neighbour(name: str, server: ServerProcess, folder: Path) -> Iterator[None]:
    """One who does that to the server, from the first time on until the block ends."""
    command = [sys.executable, "-m", "tests.attacks.neighbours", name]
    command += [server.host, str(server.port), _TOKEN, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield
        finally:
            process.kill()


class GoodCaller:
    """Somebody who asks for little, and takes down how long each kind of call takes at most."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._commands = RemSvc_pb2_grpc.RemSvcStub(channel)
        self._jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self._number = 0
        self.longest: dict[str, float] = {}

    def call_all(self) -> None:
        for what in (self.ping, self.command, self.stream, self.job):
            begun = time.monotonic()
            what()
            took = time.monotonic() - begun
            self.longest[what.__name__] = max(self.longest.get(what.__name__, 0.0), took)

    def ping(self) -> None:
        self._commands.Ping(RemSvc_pb2.PingMsg(), metadata=METADATA, timeout=DEADLINE)

    def command(self) -> None:
        answer = self._commands.RemCmd(RemSvc_pb2.RemCmdMsg(cmd="true"), metadata=METADATA, timeout=DEADLINE)
        assert (answer.rc, answer.err) == (0, "")

    def stream(self) -> None:
        commands = [RemSvc_pb2.RemCmdMsg(cmd="true", tid=tid) for tid in (1, 2, 3)]
        answers = list(self._commands.RemCmdStrm(iter(commands), metadata=METADATA, timeout=DEADLINE))
        assert [(answer.tid, answer.rc) for answer in answers] == [(1, 0), (2, 0), (3, 0)]

    def job(self) -> None:
        self._number += 1
        spec = jobs_pb2.JobSpec(shell_command="echo out")
        request = jobs_pb2.CreateJobRequest(request_id=f"good-{self._number}", spec=spec)
        job = self._jobs.CreateJob(request, metadata=METADATA, timeout=DEADLINE)
        request = jobs_pb2.WatchJobRequest(id=job.id)
        *_, last = self._jobs.WatchJob(request, metadata=METADATA, timeout=DEADLINE)
        assert last.job.state == jobs_pb2.SUCCEEDED


@contextmanager
def what_hangs(folder: Path) -> Iterator[None]:
    """In the folder, paths that do not answer, as far as this machine has them."""
    with ExitStack() as stack:
        for name, make in (("hanging", hanging_mount), ("leased", leased_program)):
            enter_if_possible(stack, make, folder / name)
        yield


def enter_if_possible(
    stack: ExitStack, make: Callable[[Path], AbstractContextManager[Path]], path: Path
) -> None:
    with suppress(pytest.skip.Exception):
        stack.enter_context(make(path))


@pytest.mark.timeout(300 + 10 * SECONDS)
def test_all_bad_neighbours_at_once(
    serve: Serve, tmp_path: Path, open_folder: Path, record_property: Callable[..., None]
) -> None:
    server = serve(_CONFIG % (tmp_path / "audit.log"))
    process = psutil.Process(server.process.pid)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        good = GoodCaller(stack.enter_context(grpc.insecure_channel(server.target, options=options)))
        good.call_all()
        idle = most = process.memory_info().rss
        stack.enter_context(what_hangs(open_folder))
        for name in NEIGHBOURS:
            stack.enter_context(neighbour(name, server, open_folder))
        good.longest.clear()
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            good.call_all()
            most = max(most, process.memory_info().rss)
    record_property("longest", good.longest)
    record_property("growth", most - idle)
    print(f"longest waits: {good.longest}; grown by {(most - idle) / 2**20:.0f} MiB")
    assert max(good.longest.values()) < _PATIENCE, good.longest
    assert most - idle < _GROWTH
    good_again = time.monotonic()
    with grpc.insecure_channel(server.target, options=options) as channel:
        GoodCaller(channel).call_all()
    assert time.monotonic() - good_again < DEADLINE
    assert "Traceback" not in server.log
