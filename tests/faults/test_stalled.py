"""Processes that stand still for a while (SIGSTOP, a suspended machine, swapping), and go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .counted_jobs import CountedJob, Runners
from .server_host import ServerHost, lines, wait_until
from .test_killed_server import answers


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_stalled_server(host: ServerHost, tmp_path: Path) -> None:
    """Its supervisor goes on taking output and ends, in bounded memory; then all of it is told."""
    log = tmp_path / "log"
    runners = Runners(host)
    jobs = [CountedJob(f"job{number}", log, pieces=20, pause=0.05, code=number % 2) for number in range(10)]
    for job in jobs:
        runners.start(job)
    wait_until(lambda: len(lines(log)) == 10, "all of them run")
    with stopped(host.pid):
        time.sleep(2)
    runners.join()
    assert sorted(lines(log)) == sorted(job.name for job in jobs)


def test_a_stalled_supervisor(host: ServerHost, tmp_path: Path) -> None:
    """The server goes on answering; what it was asked to do meanwhile happens later."""
    log = tmp_path / "log"
    runners = Runners(host)
    running, created = CountedJob("running", log, pieces=20, pause=0.05), CountedJob("created", log)
    with host.client() as client:
        runners.start(running)
        wait_until(lambda: lines(log) == ["running"], "it runs")
        (supervisor,) = host.supervisors()
        with stopped(supervisor):
            runners.start(created, times=2)
            time.sleep(1.5)
            assert client.get_job(request_id="created").state.value == "RUNNING"
            assert lines(log) == ["running"]
        runners.join()
    assert lines(log) == ["running", "created"]


def test_killed_while_the_supervisor_stalls(host: ServerHost, tmp_path: Path) -> None:
    """What the old server said last, and the new one says first, comes in one heap. It runs once."""
    log = tmp_path / "log"
    with host.client() as client:
        keeper, job = CountedJob("keeper", log, pieces=40, pause=0.1), CountedJob("job", log)
        keeper.create(client)
        wait_until(lambda: lines(log) == ["keeper"], "it runs")
        (supervisor,) = host.supervisors()
        with stopped(supervisor):
            created = job.create(client)
            host.kill()
            host.launch()
            time.sleep(1.5)  # it waits for the supervisor's hello
        wait_until(lambda: answers(client), "it serves")
        job.check_end(job.watch(client, created))
    assert lines(log) == ["keeper", "job"]
