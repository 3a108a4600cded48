"""Jobs outlive the engine that started them; one whose supervisor was killed is lost, and says so."""

from __future__ import annotations

import asyncio
import os
import random
import resource
from collections import Counter
from pathlib import Path

import pytest

from remsvc.errors import ExecutionError, StartError
from remsvc.execution.engine import ProcessEnd, ProcessSpec
from remsvc.job_state import JobState
from tests.execution.job_host import JobHost, shell
from tests.execution.processes import eventually, own_descriptors, processes_with

from .test_jobs import HostWith, lines


def command(text: str, **options: object) -> ProcessSpec:
    env = {"PATH": os.environ["PATH"], "REMSVC_COMMAND_ID": "test"}
    return ProcessSpec(("/bin/sh", "-c", text), env, "/", **options)  # type: ignore[arg-type]


# The engine goes, the supervisor stays


async def test_a_job_goes_on_while_no_engine_is_there(host: JobHost, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    job = await host.create(shell(f"echo one; read line < {go}; echo two; echo err >&2; exit 7"))
    before = await host.watch_until(job, b"one\n")
    await host.reopen()
    found = await host.jobs.get(job.id)
    assert found is not None
    assert (found.state, found.started) == (JobState.RUNNING, before.started)
    watching = asyncio.ensure_future(host.watch(job, 4, 0))
    await asyncio.to_thread(go.write_text, "now\n")
    watched = await watching
    assert (watched.stdout, watched.stderr) == (b"two\n", b"err\n")
    assert (watched.job.state, watched.job.exit_code) == (JobState.FAILED, 7)
    assert watched.job.started == before.started


async def test_a_job_that_ends_while_no_engine_is_there(host: JobHost, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    job = await host.create(shell(f"echo one; read line < {go}; seq 1 100000; exit 7"), "once")
    before = await host.watch_until(job, b"one\n")
    await host.close()
    await asyncio.to_thread(go.write_text, "now\n")
    await eventually(lambda: not host.supervisors(), "with nothing left to do the supervisor ends")
    await host.open()
    found = await host.jobs.get(job.id)
    assert found is not None
    assert (found.state, found.exit_code) == (JobState.FAILED, 7)
    assert found.started == before.started
    assert found.ended is not None
    watched = await host.watch(job)
    assert watched.stdout == b"one\n" + b"".join(b"%d\n" % n for n in range(1, 100_001))
    assert found.stdout.total == len(watched.stdout)
    assert (await host.create(shell(f"echo one; read line < {go}; seq 1 100000; exit 7"), "once")) == found


async def test_cancel_and_time_limit_hold_without_an_engine(host: JobHost, duration: str) -> None:
    script = f"trap '' TERM; echo ready; sleep {duration}; sleep {duration}"
    cancelled = await host.create(shell(script, kill_grace=1.0))
    await host.watch_until(cancelled, b"ready\n")
    limited = await host.create(shell(script, time_limit=2.0, kill_grace=0.3))
    await host.watch_until(limited, b"ready\n")  # if it ends before, less is tested
    await host.jobs.cancel(cancelled, "on second thoughts", kill=False)
    await host.close()
    await eventually(lambda: not processes_with(duration), "both were ended")
    await host.open()
    found = await host.ended(limited)
    assert (found.state, found.signal) == (JobState.TIMED_OUT, 9)
    found = await host.ended(cancelled)
    assert (found.state, found.signal, found.reason) == (JobState.CANCELLED, 9, "on second thoughts")


async def test_jobs_that_wait_are_started_by_the_next_engine(host_with: HostWith, tmp_path: Path) -> None:
    host = await host_with(max_running=1)
    log = tmp_path / "log"
    first = await host.create(shell("sleep 0.5"))
    rest = [await host.create(shell(f"cat >> {log}"), stdin=b"%d\n" % n) for n in range(5)]
    await host.reopen()
    for job in (first, *rest):
        assert (await host.ended(job)).state is JobState.SUCCEEDED
    assert lines(log) == ["0", "1", "2", "3", "4"]


async def test_the_limit_of_jobs_holds_across_engines(host_with: HostWith) -> None:
    host = await host_with(max_running=2)
    running = [await host.create(shell("sleep 1000")) for _ in range(2)]
    waiting = await host.create(shell("true"))
    await host.reopen()
    assert (await host.create(shell("true"))).state is JobState.QUEUED
    assert {job.id for job in await host.unended()} >= {waiting.id, *(job.id for job in running)}
    found = await host.jobs.get(waiting.id)
    assert found is not None
    assert found.state is JobState.QUEUED
    await host.jobs.cancel(running[0], "", kill=True)
    assert (await host.ended(waiting)).state is JobState.SUCCEEDED


async def test_opened_and_closed_again_and_again(host: JobHost, tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = []
    for number in range(15):
        jobs.append(await host.create(shell(f"echo {number} >> {log}; sleep 0.2; echo done")))
        await host.reopen()
    for job in jobs:
        watched = await host.watch(job)
        assert (watched.job.state, watched.stdout) == (JobState.SUCCEEDED, b"done\n"), watched.job.reason
    assert sorted(lines(log), key=int) == [str(number) for number in range(15)]


async def test_version_1_commands_of_two_engines_are_not_mixed_up(host: JobHost, duration: str) -> None:
    """They share a supervisor, kept alive by a job: neither's limit nor result may become the other's."""
    job = await host.create(shell(f"sleep {duration}"))
    for limit in (1.5, 6.0, 24.0):
        old = asyncio.ensure_future(
            host.jobs.engine.start(command(f"sleep {duration}", time_limit=limit)).wait()
        )
        await eventually(lambda old=old: len(processes_with(duration)) == 2 or old.done(), "both run")
        await host.reopen()
        try:
            assert (await old).timed_out, "the machine is too slow for this limit"
        except ExecutionError:
            break
    else:
        pytest.fail("it never ran until the other engine was there")
    outcome = await host.jobs.engine.start(command(f"sleep {limit + 1}; echo new", time_limit=60.0)).wait()
    assert (outcome.exit_code, outcome.stdout.head) == (0, b"new\n")
    await eventually(lambda: len(processes_with(duration)) == 1, "the old one was ended")
    await host.jobs.cancel(job, "", kill=True)


# The supervisor goes


async def test_a_job_whose_supervisor_was_killed_is_lost(
    host: JobHost, duration: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # With control groups, not even an empty environment helps: see test_cgroup.
    daemon = f"(setsid sleep {duration} >/dev/null 2>&1 &)"
    script = f"echo run >> {log}; echo output; {daemon}; sleep {duration}"
    job = await host.create(shell(script), "once")
    watching = asyncio.ensure_future(host.watch(job))
    await eventually(lambda: len(processes_with(duration)) == 2, "all of it runs")
    await host.watch_until(job, b"output\n")  # what it has not taken out of the pipe is lost with it
    host.kill_supervisor()
    watched = await watching
    assert watched.job.state is JobState.LOST
    assert watched.job.exit_code is None
    assert "not known" in watched.job.reason
    assert watched.stdout == b"output\n"
    assert watched.job.stdout.total == len(b"output\n")
    assert not processes_with(duration), "what it left was killed"
    # Never run again, and the next one is as good as ever.
    assert (await host.create(shell(script), "once")).state is JobState.LOST
    assert (await host.run(shell("echo next"))).stdout == b"next\n"
    assert lines(log) == ["run"]


async def test_engine_and_supervisor_gone(host: JobHost, duration: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = f"echo run >> {log}; sleep {duration}"
    job = await host.create(shell(script), "once")
    ended = await host.ended(await host.create(shell("echo whole")))
    await eventually(lambda: processes_with(duration), "it runs")
    host.kill_supervisor()
    await host.reopen()
    assert (await host.ended(job)).state is JobState.LOST
    assert not processes_with(duration)
    assert await host.jobs.get(ended.id) == ended
    assert (await host.create(shell(script), "once")).state is JobState.LOST
    assert lines(log) == ["run"]


async def test_what_waits_is_not_lost_with_the_supervisor(host_with: HostWith, tmp_path: Path) -> None:
    host = await host_with(max_running=2)
    log = tmp_path / "log"
    for _ in range(2):
        await host.create(shell("sleep 1000"))
    waiting = [await host.create(shell(f"echo {n} >> {log}")) for n in range(6)]
    host.kill_supervisor()
    for job in waiting:
        assert (await host.ended(job)).state is JobState.SUCCEEDED
    assert sorted(lines(log)) == [str(n) for n in range(6)]


async def test_a_supervisor_killed_again_and_again_while_jobs_are_started(
    host_with: HostWith, tmp_path: Path
) -> None:
    """No job runs twice, and none is said to have succeeded or failed that did not."""
    host = await host_with(max_running=4)
    log = tmp_path / "log"
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    chance = random.Random(seed)
    jobs = {}
    for number in range(60):
        job = await host.create(shell(f"echo {number} >> {log}; sleep 0.0{number % 10}; echo done"))
        jobs[number] = job
        if number % 10 == 9:
            await asyncio.sleep(chance.random() * 0.2)
            for pid in host.supervisors():
                os.kill(pid, 9)
    states = {number: (await host.ended(job)) for number, job in jobs.items()}
    runs = Counter(map(int, lines(log)))
    assert not [number for number, count in runs.items() if count > 1]
    for number, job in states.items():
        assert job.state in (JobState.SUCCEEDED, JobState.LOST), job.reason
        if job.state is JobState.SUCCEEDED:
            assert runs[number] == 1
            assert (await host.watch(job)).stdout == b"done\n"
    assert Counter(job.state for job in states.values())[JobState.SUCCEEDED] > 10
    assert (await host.run(shell("echo whole"))).stdout == b"whole\n"


async def test_version_1_goes_on_after_the_supervisor(host: JobHost) -> None:
    host.kill_supervisor()

    async def once_there_is_another() -> ProcessEnd:
        while True:
            try:
                return await host.jobs.engine.start(command("echo fine")).wait()
            except (StartError, ExecutionError):
                await asyncio.sleep(0.02)

    outcome = await asyncio.wait_for(once_there_is_another(), 30)
    assert outcome.stdout.head == b"fine\n"


# What it needs


async def test_more_jobs_than_descriptors_by_default(tmp_path: Path) -> None:
    """A usual limit of 1024 is enough for no more than 250 jobs. They are given what was given to us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    host = JobHost(tmp_path / "state")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        await host.open()  # starts the supervisor, which inherits the limit
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        jobs = [await host.create(shell("ulimit -n; sleep 1")) for _ in range(150)]
        for job in jobs:
            watched = await host.watch(job)
            assert (watched.stdout, watched.job.reason) == (b"256\n", "")
    finally:
        await host.end()


async def test_nothing_is_left_after_many(host: JobHost) -> None:
    await host.run(shell("true"))
    (supervisor,) = host.supervisors()

    def left() -> tuple[int, int, list[str]]:
        descriptors = len(os.listdir(f"/proc/{supervisor}/fd"))
        return descriptors, own_descriptors(), sorted(os.listdir(host.path))

    before = left()
    for _ in range(10):
        jobs = await asyncio.gather(*(host.create(shell("echo a"), stdin=b"in") for _ in range(30)))
        await asyncio.gather(*(host.watch(job) for job in jobs))
    await eventually(lambda: left() == before, "everything is closed")
    assert not Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
    left_files = {path.name for path in (host.path / "jobs").glob("*/*")}
    assert left_files == {"stdout"}


async def test_the_supervisor_stays_in_no_folder(host: JobHost, tmp_path: Path) -> None:
    """A file system that somebody is in cannot be unmounted."""
    await host.run(shell("true", cwd=str(tmp_path)))
    (supervisor,) = host.supervisors()
    assert Path(f"/proc/{supervisor}/cwd").readlink() == Path("/")
