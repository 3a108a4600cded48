"""With control groups, what a job has started ends with it, wherever it went."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remsvc.execution.jobs.jobs import Jobs
from remsvc.execution.jobs.model import JobContent, JobLimits, JobRecord, content_digest
from remsvc.execution.supervisor.cgroup import GroupParent, find_parent, own_group
from remsvc.job_state import JobState
from tests.execution.processes import eventually, processes_with

# Leaves its session, its environment, its outputs and its parent behind.
ESCAPE = "(setsid env -i sh -c 'sleep {0} & sleep {0} &' >/dev/null 2>&1 </dev/null &) ; sleep {0}"


@pytest.fixture
def groups() -> Iterator[Path]:
    own = own_group()
    if os.geteuid() != 0 or own is None:
        pytest.skip("needs root and a mounted version-2 control group hierarchy")
    parent = own / f"test-of-remsvc-{os.getpid()}-{time.monotonic_ns()}"
    parent.mkdir()
    yield parent
    assert not list(parent.glob("*/")), "supervisors remove their groups"
    parent.rmdir()


async def run_until_escaped(jobs: Jobs, duration: str) -> JobRecord:
    content = JobContent(shell_command=ESCAPE.format(duration), kill_grace=0.1)
    job = await jobs.create("me", "one", content_digest(content, b""), content)
    await eventually(lambda: len(processes_with(duration)) == 3, "all of it runs")
    return job


async def test_cancel_ends_what_has_left_everything_behind(
    groups: Path, tmp_path: Path, duration: str
) -> None:
    jobs = Jobs(tmp_path, JobLimits(), GroupParent("the test's", groups))
    await jobs.open()
    try:
        job = await run_until_escaped(jobs, duration)
        await jobs.cancel(job, "enough", kill=False)
        last = [event async for event in jobs.watch(job, None, None)][-1]
        assert isinstance(last, JobRecord)
        assert last.state is JobState.CANCELLED
        assert not processes_with(duration)
    finally:
        await jobs.close()


async def test_what_a_lost_job_left_is_killed(groups: Path, tmp_path: Path, duration: str) -> None:
    jobs = Jobs(tmp_path, JobLimits(), GroupParent("the test's", groups))
    await jobs.open()
    try:
        job = await run_until_escaped(jobs, duration)
        supervisor = (await jobs.get(job.id) or job).pid
        assert supervisor is not None
        parent = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, 9)
        last = await asyncio.wait_for(_last(jobs, job), 30)
        assert last.state is JobState.LOST
        await eventually(lambda: not processes_with(duration), "what it left behind is gone")
    finally:
        await jobs.close()


async def test_a_background_process_outlives_a_job_that_ended_by_itself(
    groups: Path, tmp_path: Path, duration: str
) -> None:
    jobs = Jobs(tmp_path, JobLimits(), GroupParent("the test's", groups))
    await jobs.open()
    try:
        content = JobContent(shell_command=f"nohup sleep {duration} >/dev/null 2>&1 &")
        job = await jobs.create("me", "one", content_digest(content, b""), content)
        assert (await _last(jobs, job)).state is JobState.SUCCEEDED
        await eventually(lambda: processes_with(duration), "the shell that was left has become it")
        (pid,) = processes_with(duration)
        os.kill(pid, 9)
        await eventually(lambda: not processes_with(duration), "it has ended")
        again = JobContent(shell_command="true")
        await _last(jobs, await jobs.create("me", "two", content_digest(again, b""), again))
    finally:
        await jobs.close()


def test_a_group_that_does_not_exist_is_not_used() -> None:
    assert find_parent("/nonexistent") is None


async def _last(jobs: Jobs, job: JobRecord) -> JobRecord:
    last = [event async for event in jobs.watch(job, None, None)][-1]
    assert isinstance(last, JobRecord)
    return last


async def test_an_empty_group_of_somebody_else_stays(groups: Path, tmp_path: Path) -> None:
    """Another supervisor may be about to enter it."""
    other = groups / "remsvc-fe00.1-00000000"
    other.mkdir()
    jobs = Jobs(tmp_path, JobLimits(), GroupParent("the test's", groups))
    await jobs.open()
    await jobs.close()
    assert other.exists()
    other.rmdir()


async def test_one_that_moves_itself_elsewhere_is_ended(groups: Path, tmp_path: Path, duration: str) -> None:
    """Root can leave a group, even with nothing else that tells whose it is."""
    home = own_group()
    leave = f"echo 0 > {home}/cgroup.procs; exec sleep {duration}"
    script = f"(env -i setsid sh -c '{leave}' >/dev/null 2>&1 </dev/null &) ; sleep {duration}"
    jobs = Jobs(tmp_path, JobLimits(), GroupParent("the test's", groups))
    await jobs.open()
    try:
        content = JobContent(shell_command=script, kill_grace=0.1)
        job = await jobs.create("me", "one", content_digest(content, b""), content)
        await eventually(lambda: len(processes_with(duration)) == 2, "all of it runs")
        await jobs.cancel(job, "enough", kill=True)
        assert (await _last(jobs, job)).state is JobState.CANCELLED
        assert not processes_with(duration)
    finally:
        await jobs.close()
