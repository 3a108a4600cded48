"""Cancelling a job, or its time limit, ends everything that it started: TERM, a grace period, KILL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from remsvc.execution.jobs.model import JobRecord
from remsvc.job_state import JobState
from tests.execution.job_host import JobHost, shell
from tests.execution.processes import eventually, processes_with
from tests.execution.supervisor.test_process_tree import ESCAPES

TERM_IGNORED = "trap '' TERM HUP INT; "


async def cancelled(
    host: JobHost, job: JobRecord, *, kill: bool = False, reason: str = "enough"
) -> JobRecord:
    await host.jobs.cancel(job, reason, kill=kill)
    return await host.ended(job)


async def running(host: JobHost, script: str, duration: str, count: int, **options: object) -> JobRecord:
    """A job that runs ``script`` with ``duration`` in it, once ``count`` processes have it as argument."""
    job = await host.create(shell(script.format(duration), **options))
    await eventually(lambda: len(processes_with(duration)) >= count, "all of it runs")
    return job


async def test_cancel(host: JobHost, duration: str) -> None:
    job = await running(host, "exec sleep {0}", duration, 1)
    ended = await cancelled(host, job, reason="because of the weather")
    assert (ended.state, ended.reason) == (JobState.CANCELLED, "because of the weather")
    assert (ended.exit_code, ended.signal) == (143, 15)
    assert not processes_with(duration)


async def test_cancel_answers_at_once_and_the_first_reason_stays(host: JobHost, duration: str) -> None:
    job = await running(host, TERM_IGNORED + "sleep {0}; sleep {0}", duration, 1, kill_grace=0.5)
    assert (await host.jobs.cancel(job, "first", kill=False)).state is JobState.RUNNING
    assert (await host.jobs.cancel(job, "second", kill=False)).state is JobState.RUNNING
    ended = await host.ended(job)
    assert (ended.state, ended.reason, ended.signal) == (JobState.CANCELLED, "first", 9)


async def test_cancel_of_an_ended_job_changes_nothing(host: JobHost) -> None:
    ended = await host.ended(await host.create(shell("true")))
    assert await host.jobs.cancel(ended, "too late", kill=True) == ended
    assert await host.jobs.get(ended.id) == ended


async def test_cancel_of_a_job_that_waits_never_starts_it(host_with, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    host = await host_with(max_running=1)
    ran = tmp_path / "ran"
    blocker = await host.create(shell("sleep 1000"))
    job = await host.create(shell(f"touch {ran}"))
    watching = asyncio.ensure_future(host.watch(job))
    await asyncio.sleep(0)
    ended = await host.jobs.cancel(job, "changed my mind", kill=False)
    assert (ended.state, ended.reason, ended.started) == (JobState.CANCELLED, "changed my mind", None)
    assert (await watching).job == ended
    await cancelled(host, blocker, kill=True)
    await host.run(shell("true"))
    assert not ran.exists()


async def test_cancel_at_once(host: JobHost, duration: str) -> None:
    """Whether its process is there already or not, it ends as cancelled and leaves nothing."""
    jobs = await asyncio.gather(*(host.create(shell(f"sleep {duration}")) for _ in range(20)))
    await asyncio.gather(*(host.jobs.cancel(job, "at once", kill=False) for job in jobs))
    for job in jobs:
        ended = await host.ended(job)
        assert (ended.state, ended.reason) == (JobState.CANCELLED, "at once")
    assert not processes_with(duration)


async def test_a_command_may_use_the_grace_to_end_well(host: JobHost, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'echo cleaning; exit 3' TERM; touch {ready}; while :; do sleep 0.01; done"
    job = await host.create(shell(script, kill_grace=60.0))
    await eventually(ready.exists, "it runs")
    ended = await cancelled(host, job)
    assert (ended.state, ended.exit_code, ended.signal) == (JobState.CANCELLED, 3, None)
    assert (await host.watch(job)).stdout == b"cleaning\n"


async def test_kill_does_not_wait_for_the_grace(host: JobHost, duration: str) -> None:
    job = await running(host, TERM_IGNORED + "sleep {0}", duration, 1, kill_grace=1000.0)
    assert (await cancelled(host, job, kill=True)).signal == 9
    job = await running(host, TERM_IGNORED + "sleep {0}", duration, 1, kill_grace=1000.0)
    await host.jobs.cancel(job, "gently", kill=False)
    await asyncio.sleep(0.1)
    ended = await cancelled(host, job, kill=True, reason="now")
    assert (ended.signal, ended.reason) == (9, "gently")


async def test_without_a_grace_it_is_killed(host: JobHost, duration: str) -> None:
    job = await running(host, TERM_IGNORED + "sleep {0}", duration, 1, kill_grace=0.0)
    assert (await cancelled(host, job)).signal == 9


async def test_the_time_limit(host: JobHost, duration: str) -> None:
    watched = await host.run(shell(f"echo before; sleep {duration}", time_limit=0.5))
    job = watched.job
    assert (job.state, job.signal) == (JobState.TIMED_OUT, 15)
    assert job.reason == "its time limit of 0.5 s was reached"
    assert watched.stdout == b"before\n"
    assert not processes_with(duration)


async def test_time_does_not_run_while_it_waits(host_with) -> None:  # type: ignore[no-untyped-def]
    host = await host_with(max_running=1)
    blocker = await host.create(shell("sleep 1.5"))
    job = await host.create(shell("echo done", time_limit=1.0))
    assert (await host.ended(blocker)).state is JobState.SUCCEEDED
    assert (await host.ended(job)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("how", ["cancel", "time limit"])
async def test_the_whole_tree_ends(host: JobHost, duration: str, name: str, how: str) -> None:
    script = ESCAPES[name]
    expected = script.count("{0}") - ("kill -STOP $$" in script)  # a stopped shell has not gone on yet
    if how == "cancel":
        job = await running(host, script, duration, expected, kill_grace=0.3)
        ended = await cancelled(host, job)
    else:
        ended = await timed_out(host, script, duration, expected)
    assert ended.state is (JobState.TIMED_OUT if how == "time limit" else JobState.CANCELLED)
    assert not processes_with(duration)


async def timed_out(host: JobHost, script: str, duration: str, count: int) -> JobRecord:
    """A job that its time limit has ended, with all that it starts, however long that takes here."""
    for time_limit in (0.5, 2.0, 8.0):
        job = await host.create(shell(script.format(duration), kill_grace=0.3, time_limit=time_limit))
        ending = asyncio.ensure_future(host.ended(job))
        most = 0
        while not ending.done():
            most = max(most, len(processes_with(duration)))
            await asyncio.sleep(0.02)
        if most >= count:
            break
    assert most >= count, "all of it has run"
    return ending.result()


async def test_a_tree_that_forks_while_it_is_ended(host: JobHost, duration: str) -> None:
    script = TERM_IGNORED + "n=0; while [ $n -lt 300 ]; do n=$((n+1)); setsid sleep {0} & done; wait"
    job = await running(host, script, duration, 50, kill_grace=0.1)
    assert (await cancelled(host, job)).state is JobState.CANCELLED
    assert not processes_with(duration)


async def test_the_first_process_ends_in_the_grace_and_another_does_not(host: JobHost, duration: str) -> None:
    """The job has ended when all of it has."""
    script = f'(setsid sh -c "{TERM_IGNORED} sleep {{0}}; sleep {{0}}" {{0}} &); exec sleep 1000'
    job = await running(host, script, duration, 2, kill_grace=0.5)
    ended = await cancelled(host, job)
    assert (ended.state, ended.signal) == (JobState.CANCELLED, 15)
    assert not processes_with(duration)


async def test_a_process_whose_first_thread_has_ended(host: JobHost, tmp_path: Path) -> None:
    """It looks like a zombie, and is not one."""
    code = (
        "import ctypes, os, threading, time; "
        "threading.Thread(target=time.sleep, args=(1000,)).start(); print(os.getpid(), flush=True); "
        "ctypes.CDLL(None).pthread_exit(0)"
    )
    pid_file = tmp_path / "pid"
    job = await host.create(shell(f"(setsid {sys.executable} -c '{code}' > {pid_file} &); sleep 1000"))
    await eventually(lambda: pid_file.exists() and pid_file.read_text(), "it runs")
    pid = int(pid_file.read_text())
    await eventually(lambda: ") Z " in Path(f"/proc/{pid}/stat").read_text(), "its first thread has ended")
    assert (await cancelled(host, job, kill=True)).state is JobState.CANCELLED
    # Its other thread would sleep on. What has ended may have to be reaped yet.
    await eventually(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")


async def test_others_are_left_alone(host: JobHost, duration: str) -> None:
    other = await running(host, "(setsid sleep {0} &); sleep {0}", duration, 2)
    survivors = processes_with(duration)
    job = await running(host, "(setsid sleep {0} &); sleep {0}", duration, 4)
    await cancelled(host, job)
    assert processes_with(duration) == survivors
    await cancelled(host, other)
    assert not processes_with(duration)


async def test_what_a_job_leaves_behind_is_its_own_business(host: JobHost, duration: str) -> None:
    ended = await host.ended(await host.create(shell(f"nohup sleep {duration} >/dev/null 2>&1 &")))
    assert ended.state is JobState.SUCCEEDED
    await eventually(lambda: processes_with(duration), "the shell that was left has become it")
    (pid,) = processes_with(duration)
    assert await host.jobs.cancel(ended, "", kill=True) == ended
    assert processes_with(duration) == {pid}
    os.kill(pid, signal.SIGKILL)


async def test_limits_beyond_what_a_wait_can_last(host: JobHost, duration: str) -> None:
    """A system call waits for 24 days at most."""
    months = 90 * 86_400.0
    job = await running(host, TERM_IGNORED + "sleep {0}", duration, 1, time_limit=months, kill_grace=months)
    await host.jobs.cancel(job, "gently", kill=False)
    assert (await host.run(shell("echo other"))).stdout == b"other\n"
    assert (await cancelled(host, job, kill=True)).signal == 9
