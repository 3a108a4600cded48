"""What a caller with a token of his own does to those who share the server: each goes on and on.

As a program: ``python -m tests.attacks.neighbours NAME HOST PORT TOKEN FOLDER``. It prints a line once it has
done its worst for the first time, and ends with its standard input. ``FOLDER`` has what
:mod:`tests.execution.hanging_files` makes: a mount ``hanging`` that does not answer, and a program
``leased``, as far as they can be had.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from tests.attacks.abuses import Target as RawTarget
from tests.attacks.abuses import deaf_readers
from tests.contract.wire import inside

_SECONDS = 30.0
_CREATE, _LIST = "/remsvc.jobs.v1.JobService/CreateJob", "/remsvc.jobs.v1.JobService/ListJobs"
_SIDE_BY_SIDE = 4


class Neighbour(NamedTuple):
    """Somebody who has a token, and what he calls with."""

    host: str
    port: int
    token: str
    folder: Path
    commands: RemSvc_pb2_grpc.RemSvcStub
    jobs: jobs_pb2_grpc.JobServiceStub
    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...]

    def create(self, spec: jobs_pb2.JobSpec) -> jobs_pb2.Job:
        request = jobs_pb2.CreateJobRequest(request_id=str(uuid.uuid4()), spec=spec)
        job: jobs_pb2.Job = self.jobs.CreateJob(request, metadata=self.metadata, timeout=_SECONDS)
        return job

    def run_and_cancel(self, command: str) -> None:
        job = self.create(jobs_pb2.JobSpec(shell_command=command))
        time.sleep(1)
        request = jobs_pb2.CancelJobRequest(id=job.id, kill=True)
        self.jobs.CancelJob(request, metadata=self.metadata, timeout=_SECONDS)

    def send(self, method: str, request: bytes) -> None:
        """A request whose bytes no library makes."""
        with suppress(grpc.RpcError):
            self.channel.unary_unary(method)(request, metadata=self.metadata, timeout=_SECONDS)


def crowds(bad: Neighbour) -> None:
    """A command of 400 processes that leave their session, and is cancelled."""
    bad.run_and_cancel("n=0; while [ $n -lt 400 ]; do n=$((n+1)); setsid sleep 100 & done; wait")


def fork_chains(bad: Neighbour) -> None:
    """A command that forks on and on, each link in a session of its own, with nothing that marks it."""
    link = "import os, time\nfor _ in range(3000):\n"
    link += "  if os.fork(): os._exit(0)\n  os.setsid(); time.sleep(0.002)"
    bad.run_and_cancel(f"env -i {sys.executable} -I -S -c '{link}' & sleep 100")


def searches(bad: Neighbour) -> None:
    """Searches for as many labels as there may be, none of which any job has."""
    labels = {f"label-{number}": "x" * 200 for number in range(32)}
    bad.jobs.ListJobs(
        jobs_pb2.ListJobsRequest(page_size=1000, labels=labels), metadata=bad.metadata, timeout=_SECONDS
    )


def repeated_fields(bad: Neighbour) -> None:
    """Requests of millions of entries, in which each is as short as can be."""
    bad.send(_LIST, b"\x18\x01" * 60_000)
    bad.send(_LIST, b"\x18\x01" * 4_000_000)
    argv = b"\x0a\x00" * 1_000_000
    bad.send(_CREATE, inside(1, b"a") + inside(2, inside(2, argv)))


def refused_texts(bad: Neighbour) -> None:
    """Commands that the policy refuses, each as long as one may be."""
    request = RemSvc_pb2.RemCmdMsg(cmd="forbidden " + "x" * 100_000, src="y" * 4_000)
    bad.commands.RemCmd(request, metadata=bad.metadata, timeout=_SECONDS)


def expanding_health_checks(bad: Neighbour) -> None:
    """What strangers may ask, a thousand times as long as what is sent."""
    request = health_pb2.HealthCheckRequest(service="x" * 3_900_000).SerializeToString()
    check = bad.channel.unary_unary("/grpc.health.v1.Health/Check")
    check(request, timeout=_SECONDS, compression=grpc.Compression.Gzip)


def heavy_queues(bad: Neighbour) -> None:
    """Jobs that wait, each with as much beside its command as there may be."""
    environment = {f"V{number}": "x" * 100_000 for number in range(15)}
    bad.create(jobs_pb2.JobSpec(shell_command="sleep 100", environment=environment))


def unread_answers(bad: Neighbour) -> None:
    """Answers that nobody takes."""
    for done in deaf_readers(RawTarget(bad.host, bad.port, bad.token)):
        if not done:
            return


def silent_paths(bad: Neighbour) -> None:
    """Programs and directories that do not answer."""
    # Whoever looks for a file there waits as well.
    if f" {bad.folder}/hanging " in Path("/proc/self/mountinfo").read_text():
        for spec in (
            jobs_pb2.JobSpec(argv=jobs_pb2.Argv(args=[f"{bad.folder}/hanging/program"])),
            jobs_pb2.JobSpec(shell_command="true", working_directory=f"{bad.folder}/hanging/a"),
        ):
            bad.create(spec)
    if (bad.folder / "leased").exists():
        bad.create(jobs_pb2.JobSpec(argv=jobs_pb2.Argv(args=[f"{bad.folder}/leased"])))


NEIGHBOURS: dict[str, Callable[[Neighbour], None]] = {
    each.__name__: each
    for each in (
        crowds,
        fork_chains,
        searches,
        repeated_fields,
        refused_texts,
        expanding_health_checks,
        heavy_queues,
        unread_answers,
        silent_paths,
    )
}
"""Each by its name. Once called, it has done its worst once."""


def _again_and_again(what: Callable[[], None]) -> None:
    while True:
        begun = time.monotonic()
        with suppress(grpc.RpcError):  # to be refused is what happens to neighbours like this
            what()
        # A neighbour on another host has processors of his own: here he must leave some to the server.
        time.sleep(max(0.02, time.monotonic() - begun))


def main(name: str, host: str, port: str, token: str, folder: str) -> None:
    os.nice(19)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(f"{host}:{port}", options=options) as channel:
        bad = Neighbour(
            *(host, int(port), token, Path(folder)),
            RemSvc_pb2_grpc.RemSvcStub(channel),
            jobs_pb2_grpc.JobServiceStub(channel),
            channel,
            (("authorization", f"Bearer {token}"),),
        )
        act = partial(NEIGHBOURS[name], bad)
        with suppress(grpc.RpcError):
            act()
        for _ in range(_SIDE_BY_SIDE):
            threading.Thread(target=_again_and_again, args=(act,), daemon=True).start()
        print("begun", flush=True)
        sys.stdin.read()
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
