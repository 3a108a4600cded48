"""Which ended jobs are kept, and which jobs end because nobody looks: leases."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from remsvc.execution.jobs.files import Piece
from remsvc.execution.jobs.journal import Journal
from remsvc.execution.jobs.model import JobForgottenError, JobRecord
from remsvc.execution.jobs.search import Filter
from remsvc.job_state import JobState
from tests.execution.job_host import JobHost, shell
from tests.execution.processes import DEADLINE

from .test_jobs import HostWith

FOREVER = {
    "collect_seconds": 0.05,
    "retention_seconds": 1e9,
    "retention_count": 10**9,
    "retention_bytes": 2**60,
}


async def remaining(host: JobHost) -> list[str]:
    """Ids of the jobs, oldest first."""
    return [job.id for job in (await host.jobs.select(Filter(), 1000)).jobs][::-1]


async def until_remaining(host: JobHost, expected: list[JobRecord]) -> None:
    deadline = time.monotonic() + DEADLINE
    while (now := await remaining(host)) != [job.id for job in expected]:
        assert time.monotonic() < deadline, now
        await asyncio.sleep(0.02)
    folders = [job.id for job in expected]
    while not {path.name for path in (host.path / "jobs").iterdir()} <= set(folders):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def run(host: JobHost, text: str, count: int = 1) -> list[JobRecord]:
    ends = []
    for _ in range(count):
        job = await host.create(shell(text))
        # From its beginning: what nobody watches may have been forgotten when the last has begun.
        ends.append(asyncio.create_task(host.ended(job)))
    return await asyncio.gather(*ends)


async def test_by_age(host_with: HostWith) -> None:
    host = await host_with(**{**FOREVER, "retention_seconds": 1.0})
    running = await host.create(shell("sleep 1000"))
    (ended,) = await run(host, "echo a")
    found = await remaining(host)
    assert ended.ended is not None
    if time.time() < ended.ended + 1.0:
        assert found == [running.id, ended.id]
    await until_remaining(host, [running])
    assert await host.jobs.get(ended.id) is None


async def test_by_count(host_with: HostWith) -> None:
    host = await host_with(**{**FOREVER, "retention_count": 3})
    running = await host.create(shell("sleep 1000"))
    ended = await run(host, "echo a", 7)
    ended.sort(key=lambda job: job.ended or 0)
    kept = sorted(ended[-3:], key=lambda job: job.seq)
    await until_remaining(host, [running, *kept])
    assert (await host.watch(kept[0])).stdout == b"a\n"


async def test_many_at_once(host_with: HostWith) -> None:
    host = await host_with(**{**FOREVER, "retention_count": 3})
    await host.close()
    journal = Journal(host.path / "journal.sqlite")
    spec, now = shell("true"), time.time()
    ended = [
        JobRecord(
            *(f"{number:020x}", "somebody", f"{number}", "digest", spec),
            created=now,
            state=JobState.SUCCEEDED,
            ended=now + number / 1000,
        )
        for number in range(1200)
    ]
    await asyncio.gather(*(journal.claim(job) for job in ended))
    await journal.close()
    await host.open()
    await until_remaining(host, ended[-3:])


async def test_by_bytes(host_with: HostWith) -> None:
    host = await host_with(**{**FOREVER, "retention_bytes": 250_000})
    for _ in range(4):
        (last,) = await run(host, "head -c 100000 /dev/zero")
    found = (await host.jobs.select(Filter(), 2)).jobs
    assert found[0].id == last.id
    await until_remaining(host, found[::-1])


async def test_dropped_output_does_not_count(host_with: HostWith) -> None:
    """When the first of three is forgotten as one too many, all of their bytes were counted."""
    host = await host_with(**{**FOREVER, "retention_count": 2, "retention_bytes": 8_000_000})
    jobs = []
    for _ in range(3):
        job = await host.create(shell("head -c 10000000 /dev/zero", output_limit=1000))
        jobs.append(await host.ended(job))
    await until_remaining(host, jobs[1:])


async def test_a_request_that_is_forgotten_is_a_new_one(host_with: HostWith) -> None:
    host = await host_with(**{**FOREVER, "retention_count": 0})
    job = await host.create(shell("true"), "once")
    await host.ended(job)
    await until_remaining(host, [])
    assert (await host.create(shell("true"), "once")).id != job.id


async def test_a_job_that_is_watched_stays_until_the_watch_ends(host_with: HostWith) -> None:
    """Also one that had ended when the watch began, and however slow the watcher is."""
    host = await host_with(**{**FOREVER, "retention_seconds": 0.2})
    job = await host.create(shell("head -c 3000000 /dev/zero", output_limit=1 << 30))
    before = host.jobs.watch(job, 0, None)
    assert isinstance(await anext(before), JobRecord)
    await host.ended(job)
    after = host.jobs.watch(job, 0, None)
    assert isinstance(await anext(after), JobRecord)
    (unwatched,) = await run(host, "true")
    await until_remaining(host, [job])
    assert await host.jobs.get(unwatched.id) is None
    for events in (before, after):
        size = 0
        async for event in events:
            size += len(event.data) if isinstance(event, Piece) else 0
        assert size == 3_000_000
    await until_remaining(host, [])
    with pytest.raises(JobForgottenError):
        await host.watch(job)


async def test_a_clock_that_was_set_back_forgets_nothing_early(host_with: HostWith) -> None:
    """A clock cannot be set for a test: instead, a job claims to have ended in the future."""
    host = await host_with(**{**FOREVER, "retention_seconds": 1.0})
    (job,) = await run(host, "echo a")
    assert job.ended is not None
    await host.close()
    journal = Journal(host.path / "journal.sqlite")
    await journal.update(dataclasses.replace(job, created=job.created + 3600, ended=job.ended + 3600))
    await journal.close()
    await host.open()
    (other,) = await run(host, "echo b")
    assert other.seq > job.seq
    await until_remaining(host, [job])
    assert (await host.watch(job)).stdout == b"a\n"


async def test_after_a_restart_what_belongs_to_no_job_is_removed(host: JobHost) -> None:
    (job,) = await run(host, "echo a")
    await host.close()
    for number in range(1500):
        stray = host.path / "jobs" / f"{number:020x}"
        stray.mkdir()
        (stray / "stdin").write_text("left by a server that was killed before the claim")
    await host.open()
    assert [path.name for path in (host.path / "jobs").iterdir()] == [job.id]


# Leases


async def test_a_lease_that_nobody_renews_ends_the_job(host_with: HostWith) -> None:
    host = await host_with(**FOREVER)
    job = await host.create(shell("sleep 1000", lease=0.5))
    deadline = time.monotonic() + DEADLINE
    while not (found := await host.jobs.get(job.id)) or not found.state.ended:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert found.state is JobState.CANCELLED
    assert found.reason == "LEASE_EXPIRED: nobody watched it for 0.5 s"
    assert found.signal == 15


async def test_a_watch_renews_the_lease(host_with: HostWith) -> None:
    host = await host_with(**FOREVER)
    job = await host.create(shell("sleep 3; echo done", lease=1.5))
    watched = await host.watch(job)
    assert (watched.job.state, watched.stdout) == (JobState.SUCCEEDED, b"done\n")


async def test_a_lease_of_a_job_that_waits(host_with: HostWith) -> None:
    host = await host_with(**FOREVER, max_running=1)
    await host.create(shell("sleep 1000"))
    job = await host.create(shell("true", lease=0.5))
    deadline = time.monotonic() + DEADLINE
    while not (found := await host.jobs.get(job.id)) or not found.state.ended:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert (found.state, found.started) == (JobState.CANCELLED, None)


async def test_a_restart_gives_watchers_time_to_come_back(host: JobHost) -> None:
    job = await host.create(shell("sleep 1000", lease=0.5))
    watching = asyncio.ensure_future(host.watch(job))
    await asyncio.sleep(0)  # it has begun
    await host.close()
    watching.cancel()
    await asyncio.sleep(0.6)  # longer than the lease
    await host.open()
    found = await host.jobs.get(job.id)
    assert found is not None
    assert found.state is JobState.RUNNING
