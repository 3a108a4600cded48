"""A disk without room: nothing is promised that is not kept, and what was promised is kept."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remsvc.client import Client
from remsvc.client.jobs import JobSpec, OutputChunk
from remsvc.errors import ResourceExhaustedError, ServerError
from tests.small_disk import small_disk

from .conftest import HostWith
from .counted_jobs import CountedJob
from .server_host import ServerHost, lines, wait_until


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 12 megabytes."""
    with small_disk(tmp_path / "disk", "size=12m") as folder:
        yield folder


@pytest.fixture
def host(disk: Path, host_with: HostWith) -> ServerHost:
    (disk / "host").mkdir()
    return host_with(state_dir=disk / "host" / "state")


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def free(disk: Path) -> None:
    (disk / "filler").unlink()


def test_a_claim_that_finds_no_room(host: ServerHost, disk: Path, tmp_path: Path) -> None:
    """Refused, nothing has run; later, the same request runs."""
    log = tmp_path / "log"
    jobs = [CountedJob(f"job{number}", log) for number in range(50)]
    with host.client() as client:
        CountedJob("before", log).run(client)
        fill(disk)
        refused = [job for job in jobs if is_refused(client, job.spec, job.name)]
        assert refused, "the journal does not grow without room"
        with_input = JobSpec(shell_command=f"echo stdin >> {log}", standard_input=bytes(1_000_000))
        assert is_refused(client, with_input, "with standard input")
        assert not [job.name for job in refused if job.name in lines(log)]
        # What is known is still told.
        assert client.get_job(request_id="before").state.value == "SUCCEEDED"
        assert len(list(client.list_jobs())) == 1 + len(jobs) - len(refused)
        free(disk)
        for job in refused:
            job.run(client)
    assert "stdin" not in lines(log)
    assert not list(host.state_dir.rglob("stdin"))


def is_refused(client: Client, spec: JobSpec, request_id: str) -> bool:
    try:
        client.create_job(spec, request_id, timeout=10)
    except ResourceExhaustedError as error:
        # Where the server keeps its files is nothing for a caller.
        return error.retry_after is not None and "state" not in str(error) and "sqlite" not in str(error)
    return False


def test_output_that_finds_no_room(host: ServerHost, disk: Path, tmp_path: Path) -> None:
    """The command goes on to its own end, what is missing is said, and other jobs are not disturbed."""
    log, go = tmp_path / "log", tmp_path / "go"
    os.mkfifo(go)
    total = 20_000_000
    head = b"".join(b"%d\n" % number for number in range(1, 1001))
    script = f"seq 1 1000; head -c {total} /dev/zero; read line < {go}; seq 1 1000; echo run >> {log}; exit 3"
    with host.client() as client:
        job = client.create_job(JobSpec(shell_command=script, output_limit=10**9), "big")
        wait_until(lambda: client.get_job(job.id).stdout.total == total + len(head), "all is written")
        CountedJob("other", log, pieces=1).create(client)
        wait_until(lambda: client.get_job(request_id="other").ended, "another one ends meanwhile")
        go.write_text("now\n")
        events = client.watch_job(job.id, timeout=30)
        pieces = [event for event in events if isinstance(event, OutputChunk)]
        ended = client.get_job(job.id)
    assert (ended.state.value, ended.exit_code) == ("FAILED", 3)
    assert ended.stdout.total == total + 2 * len(head)
    assert ended.stdout.dropped > 5_000_000
    assert ended.reason.endswith("bytes of standard output could not be stored: No space left on device")
    wait_until(lambda: ended.reason in host.log, "the log says so, too")
    assert sum(len(piece.data) for piece in pieces) == ended.stdout.total - ended.stdout.dropped
    assert b"".join(piece.data for piece in pieces).startswith(head + bytes(100_000))
    assert lines(log) == ["other", "run"]


def test_killed_while_the_disk_is_full(host: ServerHost, disk: Path, tmp_path: Path) -> None:
    """Jobs end, and nobody can write that down. When there is room again, all is known."""
    log, go = tmp_path / "log", tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; echo run >> {log}; exit 3"
    with host.client() as client:
        jobs = [client.create_job(JobSpec(shell_command=script), f"job{n}") for n in range(5)]
        fill(disk)
        fill(disk)
        go.touch()
        wait_until(lambda: len(lines(log)) == 5, "they run to their end")
        time.sleep(0.5)
        host.kill()
        time.sleep(1)
        free(disk)
        host.start()
        for job in jobs:
            wait_until(lambda job=job: client.get_job(job.id).ended, "it has ended")
            ended = client.get_job(job.id)
            assert (ended.state.value, ended.exit_code) == ("FAILED", 3), ended.reason
    assert lines(log) == ["run"] * 5


def test_started_while_the_disk_is_full(host: ServerHost, disk: Path, tmp_path: Path) -> None:
    """It comes up, or says in one line why not; with room again it comes up, and nothing is lost."""
    job = CountedJob("job", tmp_path / "log", pieces=3, pause=0.1)
    with host.client() as client:
        created = job.create(client)
        wait_until(lambda: client.get_job(created.id).ended, "it ends")
        fill(disk)
        fill(disk)
        host.kill()
        host.launch()
        time.sleep(2)
        if host.exit_code() is not None:
            assert host.exit_code() == 255
            assert "Traceback" not in host.log
        else:
            with contextlib.suppress(ServerError):
                client.get_job(created.id)
        host.kill()
        free(disk)
        host.start()
        job.check_end(job.watch(client, created))
