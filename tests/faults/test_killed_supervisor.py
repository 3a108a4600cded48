"""``kill -9`` of the supervisor: what it ran is lost and says so, and nothing is run twice or left behind."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from remsvc.client.jobs import JobSpec
from remsvc.execution.supervisor.cgroup import find_parent
from tests.execution.processes import processes_with

from .counted_jobs import CountedJob
from .server_host import ServerHost, lines, wait_until
from .test_killed_server import ROUNDS


def test_what_it_ran_is_lost_and_the_server_goes_on(host: ServerHost, tmp_path: Path) -> None:
    log = tmp_path / "log"
    mark = f"{time.time_ns() % 10**9 + 10**6}.5"
    clean = "env -i" if find_parent("") else ""  # without groups, that hides it
    spec = JobSpec(shell_command=f"echo run >> {log}; (setsid {clean} sleep {mark} &); sleep {mark}")
    with host.client() as client:
        jobs = [client.create_job(spec, f"job{number}") for number in range(5)]
        wait_until(lambda: len(processes_with(mark)) == 10, "all of it runs")
        host.kill_supervisor()
        for job in jobs:
            for event in client.watch_job(job.id, timeout=30):
                job = getattr(event, "job", job)
            assert job.state.value == "LOST"
            assert job.exit_code is None
            assert job.reason
        assert not processes_with(mark), "nothing is left of them"
        CountedJob("next", log).run(client)
        # The same request again: told, not run.
        assert client.create_job(spec, "job0").state.value == "LOST"
    assert lines(log) == ["run"] * 5 + ["next"]


@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_at_any_instant(host: ServerHost, chance: random.Random, tmp_path: Path) -> None:
    """A job has run once and all of it is there, or it is lost and has run at most once."""
    log = tmp_path / "log"
    states: Counter[str] = Counter()
    with host.client() as client:
        for number in range(ROUNDS):
            shapes = [(chance.choice([1, 3]), chance.choice([0, 0.05])) for _ in range(3)]
            jobs = [
                CountedJob(f"job{number}-{n}", log, pieces=pieces, pause=pause)
                for n, (pieces, pause) in enumerate(shapes)
            ]
            created = [job.create(client) for job in jobs]
            time.sleep(chance.uniform(0, 0.1))
            if chance.random() < 0.3:
                host.kill()
                host.kill_supervisor()
                host.start()
            else:
                host.kill_supervisor()
            for job, found in zip(jobs, created, strict=True):
                wait_until(lambda found=found: client.get_job(found.id).ended, "it ends")
                ended = client.get_job(found.id)
                states[ended.state.value] += 1
                runs = lines(log).count(job.name)
                assert runs <= 1, job.name
                if ended.state.value != "LOST":
                    job.check_end(job.watch(client, found))
        print(dict(states))
    assert set(states) <= {"LOST", "SUCCEEDED"}
    assert not host.supervisors() or len(host.supervisors()) == 1
