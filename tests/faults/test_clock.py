"""A clock that steps backwards.

No test can set the clock of the host, and a time namespace does not cover the wall clock. What such a
step leaves behind can be made, though: times in the journal that lie in the future of the server that
reads them. What must not depend on the wall clock at all, such as limits and leases, is measured by the
monotonic clock, which does not step.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from remsvc.client.jobs import JobSpec

from .counted_jobs import CountedJob
from .server_host import ServerHost, lines, wait_until


def step_back(host: ServerHost, seconds: float) -> None:
    """Make the journal look as if the clock had been set back by so much while the server was down."""
    with sqlite3.connect(host.state_dir / "journal.sqlite") as connection:
        for column in ("created", "started", "ended"):
            connection.execute(f"UPDATE jobs SET {column} = {column} + ?", (seconds,))
    connection.close()


def test_jobs_of_the_future(host: ServerHost, tmp_path: Path) -> None:
    log = tmp_path / "log"
    old = CountedJob("old", log)
    running = CountedJob("running", log, pieces=40, pause=0.05)
    with host.client() as client:
        old.run(client)
        created = running.create(client)
        wait_until(lambda: "running" in lines(log), "it runs")
        host.kill()
        step_back(host, 86_400)
        host.start()
        running.check_end(running.watch(client, created))
        new = CountedJob("new", log)
        new.run(client)
        # Newest first, whatever the clock says; the same requests are still the same jobs.
        assert [job.request_id for job in client.list_jobs(page_size=1)] == ["new", "running", "old"]
        for job in (old, running, new):
            assert job.create(client).ended
        ended = client.get_job(request_id="running")
        assert ended.started_at is not None
        assert ended.ended_at is not None
        assert ended.ended_at < ended.expires_at
    assert lines(log) == ["old", "running", "new"]


def test_limits_and_leases_do_not_look_at_it(host: ServerHost, tmp_path: Path) -> None:
    """A job that began a day after now, as the journal has it, ends by its limit all the same."""
    with host.client() as client:
        limited = client.create_job(JobSpec(shell_command="exec sleep 1000", time_limit=3.0), "limited")
        leased = client.create_job(JobSpec(shell_command="exec sleep 1000", lease=1.0), "leased")
        host.kill()
        step_back(host, 86_400)
        host.start()
        for job in (limited, leased):
            wait_until(lambda job=job: client.get_job(job.id).ended, "it ends")
        assert client.get_job(limited.id).state.value == "TIMED_OUT"
        assert client.get_job(leased.id).reason.startswith("LEASE_EXPIRED")
