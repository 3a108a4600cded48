"""``kill -9`` of the server, at any instant of its jobs' lives."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from remsvc.client import Client
from remsvc.errors import ServerError

from .counted_jobs import CountedJob, Runners
from .server_host import ServerHost, lines, wait_until

ROUNDS = int(os.environ.get("REMSVC_FAULT_ROUNDS", "20"))


@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_at_any_instant(host: ServerHost, chance: random.Random, tmp_path: Path) -> None:
    """Jobs that are created, run, end and are watched while the server dies, again and again."""
    log = tmp_path / "log"
    runners = Runners(host)
    names = []
    for number in range(ROUNDS):
        for _ in range(chance.randrange(1, 4)):
            job = CountedJob(
                f"job{len(names)}",
                log,
                pieces=chance.choice([1, 1, 3, 10]),
                pause=chance.choice([0, 0, 0.02, 0.1]),
                code=chance.choice([0, 0, 3]),
            )
            names.append(job.name)
            runners.start(job, times=chance.choice([1, 1, 2]))
        time.sleep(chance.uniform(0, 0.3))
        host.kill()
        if chance.random() < 0.3:  # and once more while it is starting
            host.launch()
            time.sleep(chance.uniform(0, 0.6))
            host.kill()
        host.start()
        if chance.random() < 0.3:
            runners.join()
        print(f"round {number}: {len(names)} jobs, {len(lines(log))} runs")
    runners.join()
    assert sorted(lines(log)) == sorted(names)


def test_while_100_jobs_run_and_20_watches_stream(host: ServerHost, tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [
        CountedJob(f"job{n}", log, pieces=10 if n < 20 else 3, pause=0.25 if n < 20 else 0.8, code=n % 4)
        for n in range(100)
    ]
    runners = Runners(host)
    for job in jobs[:20]:
        runners.start(job)
    with host.client() as client:
        created = [job.create(client) for job in jobs[20:]]
    wait_until(lambda: len(lines(log)) == 100, "all of them run")
    host.kill()
    host.start()
    runners.join()
    with host.client() as client:
        for job, found in zip(jobs[20:], created, strict=True):
            job.check_end(job.watch(client, found))
        assert len(list(client.list_jobs(page_size=7))) == 100
    assert sorted(lines(log)) == sorted(job.name for job in jobs)


def test_while_it_is_down_everything_ends(host: ServerHost, tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [CountedJob(f"job{n}", log, pieces=3, pause=0.1, code=n % 3) for n in range(30)]
    with host.client() as client:
        created = [job.create(client) for job in jobs]
    host.kill()
    wait_until(lambda: not host.supervisors(), "with nothing left to do, the supervisor ends")
    host.start()
    with host.client() as client:
        for job, found in zip(jobs, created, strict=True):
            ended = client.get_job(found.id)
            job.check_end(ended)
            assert job.watch(client, found) == ended
            assert ended.id == job.create(client).id
    assert sorted(lines(log)) == sorted(job.name for job in jobs)


def test_a_cancellation_that_was_answered_holds(host: ServerHost, tmp_path: Path) -> None:
    job = CountedJob("job", tmp_path / "log", pieces=1000, pause=0.1)
    with host.client() as client:
        created = job.create(client)
        wait_until(lambda: lines(tmp_path / "log"), "it runs")
        client.cancel_job(created.id, reason="on second thoughts")
        host.kill()
        host.start()
        wait_until(lambda: client.get_job(created.id).ended, "it ends")
        ended = client.get_job(created.id)
    assert (ended.state.value, ended.reason) == ("CANCELLED", "on second thoughts")


def answers(client: Client) -> bool:
    try:
        client.ping(timeout=1)
    except ServerError:
        return False
    return True


def test_two_servers_started_at_once_after_a_kill(host: ServerHost, tmp_path: Path) -> None:
    """An impatient operator: only one of them gets the jobs."""
    job = CountedJob("job", tmp_path / "log", pieces=10, pause=0.1)
    with host.client() as client:
        created = job.create(client)
        host.kill()
        (tmp_path / "other").mkdir()
        other = ServerHost(tmp_path / "other", state_dir=host.state_dir)
        host.launch()
        other.launch()
        try:
            wait_until(lambda: host.exit_code() or other.exit_code(), "one of them gives up")
            assert {host.exit_code(), other.exit_code()} == {255, None}
            survivor = other if host.exit_code() is not None else host
            with survivor.client() as watcher:
                wait_until(lambda: answers(watcher), "the other one serves")
                job.check_end(job.watch(watcher, created))
        finally:
            other.end()
    assert lines(tmp_path / "log") == ["job"]
