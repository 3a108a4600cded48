"""Callers who choose paths that nobody answers for: each waits alone.

A start that is held up used to hold up all others: for 45 seconds by a lease, for ever by FUSE. What a good
caller's calls may take here is a small part of that, and much more than a busy machine needs.
"""

from __future__ import annotations

import itertools
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from tests.attacks.conftest import AUTH, METADATA
from tests.conftest import DEADLINE, Serve, ServerProcess
from tests.execution.hanging_files import hanging_mount, leased_program

_CROWD = 24  # more than may start at a time
_SECONDS = 8.0
_BAD = (("authorization", "Bearer another-token-of-a-bad-client-0123456789"),)
_CONFIG = AUTH + f"bad = {_BAD[0][1].removeprefix('Bearer ')}\n"
_ids = itertools.count()

_Attack = Callable[[Path], jobs_pb2.JobSpec]


def _argv(*args: str, **options: object) -> jobs_pb2.JobSpec:
    return jobs_pb2.JobSpec(argv=jobs_pb2.Argv(args=args), **options)  # type: ignore[arg-type]


def _script(folder: Path) -> str:
    """A script of root's whose interpreter is in the folder."""
    script = folder.parent / "script"
    if not script.exists():  # else it may be being started, and is not to be written to
        script.write_text(f"#!{folder}/interpreter\n")
        script.chmod(0o755)
    return str(script)


def _link(folder: Path) -> str:
    link = folder.parent / "a" / "link"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(f"../{folder.name}/x")
    return str(link)


IN_A_MOUNT: dict[str, _Attack] = {
    "program": lambda folder: _argv(f"{folder}/program"),
    "program by a link": lambda folder: _argv(_link(folder)),
    "program by its name": lambda folder: _argv("ls", environment={"PATH": str(folder)}),
    "interpreter": lambda folder: _argv(_script(folder)),
    "working directory": lambda folder: jobs_pb2.JobSpec(shell_command="true", working_directory=str(folder)),
    "working directory below": lambda folder: _argv("true", working_directory=f"{folder}/a/b"),
    "working directory with two slashes": lambda folder: _argv(
        "true", working_directory=f"{folder.parent}//{folder.name}"
    ),
    "working directory with a dot": lambda folder: _argv(
        "true", working_directory=f"{folder.parent}/./{folder.name}"
    ),
    "working directory by a link": lambda folder: _argv("true", working_directory=_link(folder)),
    "working directory by /proc": lambda folder: _argv(
        "true", working_directory=f"/proc/self/root{folder}/x"
    ),
    "working directory of a user": lambda folder: jobs_pb2.JobSpec(
        shell_command="true", user="nobody", working_directory=str(folder)
    ),
    "PowerShell": lambda folder: jobs_pb2.JobSpec(
        shell_command="1", shell_type=jobs_pb2.SHELL_TYPE_POWERSHELL, environment={"PATH": str(folder)}
    ),
}


class Caller:
    """One who has both services, over one connection."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._commands = RemSvc_pb2_grpc.RemSvcStub(channel)
        self._jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self._metadata = metadata

    def ping(self) -> None:
        self._commands.Ping(RemSvc_pb2.PingMsg(), metadata=self._metadata, timeout=DEADLINE)

    def command(self, user: str = "") -> None:
        request = RemSvc_pb2.RemCmdMsg(cmd="true", cmdusr=user)
        answer = self._commands.RemCmd(request, metadata=self._metadata, timeout=DEADLINE)
        assert (answer.rc, answer.err) == (0, "")

    def create(self, spec: jobs_pb2.JobSpec) -> grpc.Future:
        request = jobs_pb2.CreateJobRequest(request_id=f"hanging-{next(_ids)}", spec=spec)
        return self._jobs.CreateJob.future(request, metadata=self._metadata, timeout=DEADLINE)

    def cancel(self, job: jobs_pb2.Job) -> None:
        request = jobs_pb2.CancelJobRequest(id=job.id, kill=True)
        self._jobs.CancelJob(request, metadata=self._metadata, timeout=DEADLINE)

    def end_of(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        request = jobs_pb2.WatchJobRequest(id=job.id)
        *_, last = self._jobs.WatchJob(request, metadata=self._metadata, timeout=DEADLINE)
        return last.job


@contextmanager
def callers(server: ServerProcess) -> Iterator[tuple[Caller, Caller]]:
    """A good one and a bad one."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with (
        grpc.insecure_channel(server.target, options=options) as good,
        grpc.insecure_channel(server.target, options=options) as bad,
    ):
        yield Caller(good, METADATA), Caller(bad, _BAD)


def check_service(good: Caller, user: str = "") -> None:
    """All that a good caller asks for is done in a while that is no attack's."""
    for what in (good.ping, good.command, lambda: good.command(user), _job_of(good), good.ping):
        begin = time.monotonic()
        what()
        assert time.monotonic() - begin < _SECONDS


def _job_of(caller: Caller) -> Callable[[], None]:
    def run() -> None:
        job = caller.create(jobs_pb2.JobSpec(shell_command="echo a")).result()
        assert caller.end_of(job).state == jobs_pb2.SUCCEEDED

    return run


@pytest.fixture
def folder(open_folder: Path) -> Iterator[Path]:
    """A folder that does not answer, in one that everybody may enter."""
    with hanging_mount(open_folder / "hanging") as mounted:
        yield mounted


@pytest.mark.parametrize("attack", IN_A_MOUNT.values(), ids=IN_A_MOUNT.keys())
def test_a_file_system_that_does_not_answer(serve: Serve, folder: Path, attack: _Attack) -> None:
    with callers(serve(_CONFIG)) as (good, bad):
        check_service(good, "nobody")
        asked = [bad.create(attack(folder)) for _ in range(_CROWD)]
        for _ in range(3):
            check_service(good, "nobody")
        jobs = [each.result() for each in asked]
        for job in jobs:
            bad.cancel(job)
        assert {bad.end_of(job).state for job in jobs} <= {jobs_pb2.CANCELLED, jobs_pb2.FAILED}
        check_service(good, "nobody")


_HOLDER = """
import os, sys, time
held = os.open(sys.argv[1], os.O_PATH)
if os.fork() == 0:
    os.setsid()
    time.sleep(1000)
"""


@pytest.mark.parametrize("ends", ["by itself", "by cancelling"])
def test_a_process_that_holds_open_what_does_not_answer(serve: Serve, folder: Path, ends: str) -> None:
    holder = shlex.join(["exec", sys.executable, "-I", "-S", "-c", _HOLDER, str(folder)])
    if ends == "by cancelling":
        holder = f"({holder}); sleep 1000"
    with callers(serve(_CONFIG)) as (good, bad):
        check_service(good)
        job = bad.create(jobs_pb2.JobSpec(shell_command=holder)).result()
        for _ in range(3):
            check_service(good)
        bad.cancel(job)
        assert bad.end_of(job).state in (jobs_pb2.SUCCEEDED, jobs_pb2.CANCELLED)
        check_service(good)


def test_a_program_with_a_lease_on_it(serve: Serve, tmp_path: Path) -> None:
    with callers(serve(_CONFIG)) as (good, bad), leased_program(tmp_path / "leased") as program:
        check_service(good)
        script = tmp_path / "script"
        script.write_text(f"#!{program}\n")
        script.chmod(0o755)
        asked = [bad.create(_argv(str(path))) for path in (program, script) * (_CROWD // 2)]
        for _ in range(3):
            check_service(good)
        for each in asked:
            bad.cancel(each.result())
        ends = {bad.end_of(each.result()).state for each in asked}
        assert ends <= {jobs_pb2.CANCELLED, jobs_pb2.FAILED}


def test_a_listed_folder_that_leads_to_what_does_not_answer(serve: Serve, folder: Path) -> None:
    """The policy follows links in folders that it lists; what hangs there costs nobody else a thread."""
    listed = folder.parent / "listed"
    listed.mkdir()
    (listed / "program").symlink_to(folder / "program")
    policy = f"[identity bad]\nprograms = {listed}/\n"
    with callers(serve(_CONFIG + policy)) as (good, bad), ExitStack() as stack:
        asked = [bad.create(_argv(f"{listed}/program")) for _ in range(_CROWD)]
        stack.callback(lambda: [each.cancel() for each in asked])
        for _ in range(3):
            check_service(good, "nobody")
