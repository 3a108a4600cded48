"""After 2,000 jobs there is no more of anything than before."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from remsvc.client.jobs import JobSpec, StateChange

from .conftest import HostWith
from .server_host import ServerHost, wait_until

JOBS = 2000
THREADS = 8

CHEAP = [
    JobSpec(shell_command="cat", standard_input=b"input"),
    JobSpec(shell_command="echo out; echo err >&2; exit 3"),
    JobSpec(argv=("/no/such/program",)),
    JobSpec(shell_command="kill -9 $$"),
]
# Left behind by a job that ends; over a limit of time or of output; and to be cancelled.
CANCELLED = JobSpec(shell_command="trap '' TERM; sleep 1000; sleep 1000", kill_grace=0.1)
OTHERS = [
    JobSpec(shell_command="(sleep 0.3 &); (setsid sh -c 'sleep 0.2 &' >/dev/null 2>&1 &)"),
    JobSpec(shell_command="sleep 1000 & exec sleep 1000", time_limit=0.2),
    JobSpec(shell_command="head -c 3000000 /dev/zero", output_limit=1000),
    CANCELLED,
]
KINDS = [*CHEAP * 4, *OTHERS]


def counts(host: ServerHost) -> dict[str, int]:
    found = {}
    (supervisor,) = host.supervisors()
    for name, pid in (("server", host.pid), ("supervisor", supervisor)):
        found[f"{name}'s descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found[f"{name}'s children"] = len(children)
    found["server's threads"] = len(os.listdir(f"/proc/{host.pid}/task"))
    found["files beside the jobs"] = len(list(host.state_dir.iterdir()))
    return found


@pytest.mark.timeout(240)
def test_after_2000_jobs(host_with: HostWith) -> None:
    host = host_with("[jobs]\nretention_count = 50\nmax_running = 20\n")
    errors: list[BaseException] = []

    def run(first: int) -> None:
        try:
            with host.client() as client:
                for number in range(first, JOBS, THREADS):
                    spec = KINDS[number // THREADS % len(KINDS)]
                    job = client.create_job(spec, f"job{number}")
                    if spec is CANCELLED:
                        client.cancel_job(job.id)
                    last = None
                    for event in client.watch_job(job.id, timeout=60):
                        last = event
                    assert isinstance(last, StateChange)
                    assert last.job.ended
        except BaseException as error:  # noqa: BLE001  raised again below
            errors.append(error)

    def run_all() -> None:
        threads = [threading.Thread(target=run, args=(first,)) for first in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    with host.client() as client:
        client.ping()
        before = counts(host)
        run_all()
        wait_until(lambda: fits(counts(host), before), "everything is closed and reaped")
        wait_until(lambda: len(list(client.list_jobs())) <= 50, "old jobs are forgotten")
        kept = {job.id for job in client.list_jobs()}
    wait_until(
        lambda: {path.name for path in (host.state_dir / "jobs").iterdir()} <= kept, "with their files"
    )
    names = {path.name for path in (host.state_dir / "jobs").glob("*/*")}
    assert names <= {"stdout", "stderr", "stdout.gap", "stderr.gap"}
    assert (host.state_dir / "journal.sqlite").stat().st_size < 10_000_000


def fits(now: dict[str, int], before: dict[str, int]) -> bool:
    """No more than before; the pools of threads, and of control groups, may have grown to their bounds."""
    spare = {"server's threads": 40, "server's descriptors": 4, "supervisor's descriptors": 2 * 32}
    return all(now[name] <= before[name] + spare.get(name, 0) for name in before)
