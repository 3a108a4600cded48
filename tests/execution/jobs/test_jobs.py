"""Durable jobs: what a job is given, how it fares, and what a watch of it tells."""

from __future__ import annotations

import asyncio
import os
import pwd
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from remsvc.execution.jobs.files import JobFilesError, Piece
from remsvc.execution.jobs.gate import JobPermission, OpenGate
from remsvc.execution.jobs.jobs import Jobs
from remsvc.execution.jobs.journal import Filter
from remsvc.execution.jobs.model import JobContent, JobLimits, JobRecord, QueueFullError, RequestReusedError
from remsvc.execution.supervisor.output import write_gap
from remsvc.execution.supervisor.protocol import Ended
from remsvc.execution.supervisor.records import ExitRecord, Gap
from remsvc.job_state import JobState
from tests.execution.job_host import DEADLINE, JobHost, program, shell
from tests.execution.processes import eventually

HostWith = Callable[..., Awaitable[JobHost]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# How it ended


async def test_both_outputs_and_the_end(host: JobHost) -> None:
    watched = await host.run(shell("echo out; echo err >&2"))
    job = watched.job
    assert (watched.stdout, watched.stderr) == (b"out\n", b"err\n")
    assert (job.state, job.exit_code, job.signal, job.reason) == (JobState.SUCCEEDED, 0, None, "")
    assert (job.stdout.total, job.stderr.total) == (4, 4)
    assert job.started is not None
    assert job.ended is not None
    assert job.created <= job.started <= job.ended


async def test_a_watch_tells_each_state_once(host: JobHost, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    job = await host.create(shell(f"echo begun; read line < {go}"))
    states = []

    async def look() -> None:
        async for event in host.jobs.watch(job, 0, None):
            if isinstance(event, JobRecord):
                states.append(event.state)
            else:
                go.write_text("now\n")

    await asyncio.wait_for(look(), DEADLINE)
    assert states in (
        [JobState.RUNNING, JobState.SUCCEEDED],
        [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED],
    )


@pytest.mark.parametrize("code", [1, 2, 255])
async def test_an_exit_code(host: JobHost, code: int) -> None:
    job = (await host.run(shell(f"exit {code}"))).job
    assert (job.state, job.exit_code, job.signal) == (JobState.FAILED, code, None)


async def test_a_signal(host: JobHost) -> None:
    job = (await host.run(shell("kill -SEGV $$"))).job
    assert (job.state, job.exit_code, job.signal) == (JobState.FAILED, 139, 11)
    assert job.reason == "ended by signal 11"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (program("/no/such/program"), "No such file or directory: /no/such/program"),
        (program("no-such-program"), "No such file or directory: no-such-program"),
        (program("/etc"), "Permission denied: /etc"),
        (program("/bin/echo", "x" * 200_000), "longer than the system can start"),
        (shell("true", cwd="/no/such/folder"), "No such file or directory: /no/such/folder"),
        (shell("true", cwd="/etc/passwd"), "Not a directory: /etc/passwd"),
        (shell("true", user="no-such-user"), "user not found: no-such-user"),
    ],
    ids=["program", "name", "folder", "too long", "cwd", "cwd is a file", "user"],
)
async def test_what_cannot_be_started_says_why(host: JobHost, content: JobContent, reason: str) -> None:
    watched = await host.run(content)
    assert watched.job.state is JobState.FAILED
    assert watched.job.exit_code is None
    assert reason in watched.job.reason
    assert watched.job.ended is not None
    assert watched.stdout + watched.stderr == b""


# What it is given


async def test_arguments_reach_the_program_as_they_are(host: JobHost) -> None:
    watched = await host.run(program("/usr/bin/printf", r"%s\n", "a b", "$HOME", "*", "'\"", "", "é\n"))
    assert watched.stdout.decode() == "a b\n$HOME\n*\n'\"\n\né\n\n"


async def test_the_environment_is_clean_and_what_the_job_adds_wins(
    host: JobHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMSVC_TEST_SECRET", "hidden")
    watched = await host.run(program("/usr/bin/env", env={"HOME": "/elsewhere", "ADDED": "a b\nc"}))
    assert b"HOME=/elsewhere\n" in watched.stdout
    assert b"ADDED=a b\nc\n" in watched.stdout
    assert b"PATH=" in watched.stdout
    assert b"hidden" not in watched.stdout


async def test_the_path_of_its_own_environment_finds_the_program(host: JobHost, tmp_path: Path) -> None:
    script = tmp_path / "greet"
    script.write_text("#!/bin/sh\necho hello $1\n")
    script.chmod(0o755)
    watched = await host.run(program("greet", "you", env={"PATH": f"{tmp_path}:/usr/bin:/bin"}))
    assert watched.stdout == b"hello you\n"


async def test_the_working_directory(host: JobHost, tmp_path: Path) -> None:
    assert (await host.run(shell("pwd", cwd=str(tmp_path)))).stdout.decode() == f"{tmp_path}\n"
    home = pwd.getpwuid(os.geteuid()).pw_dir
    expected = home if os.access(home, os.X_OK) else "/"
    assert (await host.run(shell("pwd"))).stdout.decode() == f"{expected}\n"


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
async def test_standard_input_then_its_end(host: JobHost, size: int) -> None:
    data = os.urandom(size)
    assert (await host.run(shell("cat"), stdin=data)).stdout == data


async def test_standard_input_is_gone_with_the_end(host: JobHost) -> None:
    """It may hold a secret, and counts nowhere towards the bytes that are kept."""
    await host.run(shell("cat"), stdin=b"a secret")
    await eventually(lambda: not list(host.path.rglob("stdin")), "its file is gone")


async def test_binary_output_is_unchanged(host: JobHost) -> None:
    watched = await host.run(program("/usr/bin/printf", r"\000\377\r\n\303"))
    assert watched.stdout == b"\0\xff\r\n\xc3"


@needs_root
async def test_another_user(host: JobHost, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    watched = await host.run(shell("id -u; id -g; cat; echo $USER", user="nobody", cwd="/"), stdin=b"in\n")
    assert watched.stdout.decode().split() == [str(nobody.pw_uid), str(nobody.pw_gid), "in", "nobody"]
    tmp_path.chmod(0o700)
    job = (await host.run(shell("pwd", user="nobody", cwd=str(tmp_path)))).job
    assert job.state is JobState.FAILED
    assert "cannot be entered by that user" in job.reason


@needs_root
async def test_another_user_cannot_read_the_state_directory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        host = JobHost(Path(folder, "state"))
        await host.open()
        try:
            await check_that_nobody_reads(host)
        finally:
            await host.end()


async def check_that_nobody_reads(host: JobHost) -> None:
    watched = await host.run(shell(f"ls -ld {host.path}; id -un", user="nobody", cwd="/"))
    assert watched.stdout.split()[-1] == b"nobody", "it gets there, at least"
    await host.run(shell("echo secret"), stdin=b"secret")
    watched = await host.run(
        shell(f"find {host.path}; cat {host.path}/journal.sqlite", user="nobody", cwd="/")
    )
    assert watched.stdout in (b"", f"{host.path}\n".encode())
    host.path.chmod(0o755)  # as a package or an administrator may have made it
    watched = await host.run(
        shell(f"cat {host.path}/journal.sqlite* {host.path}/jobs/*/*", user="nobody", cwd="/")
    )
    assert watched.stdout == b""


# The same request again


async def test_the_same_request_gives_the_same_job_whenever_it_comes(host: JobHost, tmp_path: Path) -> None:
    log = tmp_path / "log"
    go = tmp_path / "go"
    os.mkfifo(go)
    content = shell(f"echo run >> {log}; read line < {go}")
    first = await host.create(content, "once")
    again = await host.create(content, "once")
    assert (again.id, again.state) == (first.id, JobState.RUNNING)
    await asyncio.to_thread(go.write_text, "now\n")
    ended = await host.ended(first)
    after = await host.create(content, "once")
    assert after == ended
    await host.reopen()
    assert await host.create(content, "once") == ended
    assert lines(log) == ["run"]


async def test_the_same_request_at_the_same_time(host: JobHost, tmp_path: Path) -> None:
    log = tmp_path / "log"
    content = shell(f"echo run >> {log}; cat >> {log}")
    created = await asyncio.gather(*(host.create(content, "once", stdin=b"in\n") for _ in range(50)))
    assert len({job.id for job in created}) == 1
    await host.ended(created[0])
    assert lines(log) == ["run", "in"]
    assert len(list((host.path / "jobs").iterdir())) <= 1, "the others' standard input is gone"


@pytest.mark.parametrize(
    "other",
    [
        {"shell_command": "echo b"},
        {"shell_command": None, "argv": ("echo", "a")},
        {"env": {"A": "b"}},
        {"cwd": "/"},
        {"time_limit": 3.0},
        {"kill_grace": 3.0},
        {"output_limit": 3},
        {"labels": {"a": "b"}},
        {"user": "root"},
        {"lease": 9.0},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_the_same_request_id_with_other_content(host: JobHost, other: dict[str, object]) -> None:
    first = await host.create(shell("echo a"), "once")
    with pytest.raises(RequestReusedError) as caught:
        await host.create(shell("echo a", **other), "once")
    assert caught.value.job_id == first.id
    with pytest.raises(RequestReusedError):
        await host.create(shell("echo a"), "once", stdin=b"in")
    assert (await host.create(shell("echo a"), "once")).id == first.id


async def test_request_ids_belong_to_an_identity(host: JobHost) -> None:
    hers = await host.create(shell("echo a"), "once", identity="alice")
    his = await host.create(shell("echo b"), "once", identity="bob")
    assert hers.id != his.id
    for identity, job in (("alice", hers), ("bob", his)):
        found = await host.jobs.find(identity, "once")
        assert found is not None
        assert found.id == job.id
    assert await host.jobs.find("carol", "once") is None


async def test_a_creator_that_goes_away_changes_nothing(host: JobHost, tmp_path: Path) -> None:
    """The call is cancelled at whatever point; asked again, the job has run once."""
    log = tmp_path / "log"
    for number in range(30):
        content = shell(f"cat; echo {number} >> {log}")
        creating = asyncio.ensure_future(host.create(content, f"r{number}", stdin=b"in"))
        for _ in range(number % 6):
            await asyncio.sleep(0)
        if number % 6 == 5:
            await asyncio.sleep(number / 10_000)
        creating.cancel()
        await asyncio.wait([creating])
        watched = await host.run(content, request_id=f"r{number}", stdin=b"in")
        assert watched.job.state is JobState.SUCCEEDED
        assert watched.stdout == b"in"
    assert lines(log) == [str(number) for number in range(30)]


# Watching


async def test_a_watch_begins_at_any_offset(host: JobHost) -> None:
    job = await host.create(shell("printf 0123456789; printf abcdef >&2"))
    await host.ended(job)
    for offset in range(12):
        watched = await host.watch(job, offset, max(0, offset - 4))
        assert watched.stdout == b"0123456789"[offset:]
        assert watched.stderr == b"abcdef"[max(0, offset - 4) :]


async def test_a_watch_of_one_output_or_none(host: JobHost) -> None:
    job = await host.create(shell("echo out; echo err >&2"))
    assert (await host.watch(job, None, 0)).stderr == b"err\n"
    assert (await host.watch(job, 0, None)).stdout == b"out\n"
    watched = await host.watch(job, None, None)
    assert (watched.stdout, watched.stderr) == (b"", b"")


async def test_an_offset_beyond_what_was_written_waits_for_it(host: JobHost, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    job = await host.create(shell(f"printf 0123; read line < {go}; printf 456789"))
    watching = asyncio.ensure_future(host.watch(job, 7))
    await host.watch_until(job, b"0123")
    assert not watching.done()
    await asyncio.to_thread(go.write_text, "now\n")
    assert (await watching).stdout == b"789"


async def test_output_comes_while_the_command_runs(host: JobHost, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    job = await host.create(shell(f"echo first; read line < {go}; echo second"))
    seen = b""
    async for event in host.jobs.watch(job, 0, None):
        if isinstance(event, Piece):
            seen += event.data
            if seen == b"first\n":
                current = await host.jobs.get(job.id)
                assert current is not None
                assert (current.state, current.stdout.total) == (JobState.RUNNING, 6)
                await asyncio.to_thread(go.write_text, "now\n")
    assert seen == b"first\nsecond\n"


async def test_many_watches_of_one_job(host: JobHost) -> None:
    job = await host.create(shell("for n in 1 2 3 4 5; do echo $n; sleep 0.05; done"))
    watched = await asyncio.gather(*(host.watch(job, n % 3) for n in range(30)))
    assert {w.stdout for w in watched} == {b"1\n2\n3\n4\n5\n"[n:] for n in range(3)}


async def test_a_watch_that_is_given_up_leaves_nothing(host: JobHost) -> None:
    job = await host.create(shell("echo a; sleep 1000"))
    for _ in range(20):
        events = host.jobs.watch(job, 0, 0)
        assert isinstance(await anext(events), JobRecord)
        assert isinstance(await anext(events), Piece)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.wait([waiting])
        await events.aclose()
    await host.jobs.cancel(job, "", kill=True)
    assert (await host.ended(job)).state is JobState.CANCELLED


async def test_room_for_what_was_dropped_is_asked_for_once_and_given_back(
    host: JobHost, tmp_path: Path
) -> None:
    """Where the disk was full, an output may end with a gap that is longer than its file."""
    go = tmp_path / "go"
    os.mkfifo(go)
    job = await host.create(
        shell(f"printf 0123456789; exec <> {go}; while read line; do echo $line >&2; done")
    )
    await host.watch_until(job, b"0123456789")
    write_gap(host.path / "jobs" / job.id / "stdout", Gap(5, 1000))
    asked = within = 0

    @asynccontextmanager
    async def room() -> AsyncIterator[int]:
        nonlocal asked, within
        asked, within = asked + 1, within + 1
        yield 1000
        within -= 1

    pieces: list[Piece] = []

    async def look() -> None:
        async for event in host.jobs.watch(job, 0, 0, room):
            pieces.extend([event] if isinstance(event, Piece) else [])

    watching = asyncio.ensure_future(look())
    for number in range(1, 6):
        await asyncio.to_thread(go.write_text, "more\n")
        await eventually(lambda: sum(p.stream == "stderr" for p in pieces) == number, "it is told")  # noqa: B023
        assert within == 0
    assert [piece for piece in pieces if piece.stream == "stdout"] == [Piece("stdout", 0, b"01234")]
    assert asked == len(pieces) + 1
    await host.jobs.cancel(job, "", kill=True)
    await asyncio.wait_for(watching, DEADLINE)


async def test_a_background_process_delays_nothing(host: JobHost) -> None:
    """A child that merely holds standard output open does not hold up the result."""
    watched = await asyncio.wait_for(host.run(shell("sleep 20 & echo $!")), 10)
    assert watched.job.state is JobState.SUCCEEDED
    os.kill(int(watched.stdout), 9)


# Finding and listing


async def test_get_and_find(host: JobHost) -> None:
    job = await host.create(shell("true"), "mine")
    ended = await host.ended(job)
    assert await host.jobs.get(job.id) == ended
    assert await host.jobs.find("alice", "mine") == ended
    assert await host.jobs.get("no-such-job") is None
    assert await host.jobs.find("alice", "no such request") is None


async def test_the_list_is_newest_first_and_shows_sizes_so_far(host: JobHost) -> None:
    old = await host.create(shell("true"))
    await host.ended(old)
    new = await host.create(shell("echo four; sleep 1000"))

    async def sizes() -> list[tuple[str, int]]:
        found = await host.jobs.select(Filter(identity="alice"), 10)
        return [(job.id, job.stdout.total) for job in found.jobs]

    while await sizes() != [(new.id, 5), (old.id, 0)]:
        await asyncio.sleep(0.01)


# Room


async def test_no_more_run_than_may_and_the_others_wait(host_with: HostWith, tmp_path: Path) -> None:
    host = await host_with(max_running=3)
    log = tmp_path / "log"
    together = f"until [ $(grep -c start {log}) -ge 3 ]; do sleep 0.01; done"
    content = shell(f"echo start >> {log}; {together}; echo end >> {log}; cat")
    jobs = await asyncio.gather(*(host.create(content, stdin=b"x") for _ in range(20)))
    assert {job.state for job in jobs} == {JobState.RUNNING, JobState.QUEUED}
    for job in jobs:
        assert (await host.ended(job)).state is JobState.SUCCEEDED
    running = most = 0
    for line in lines(log):
        running += 1 if line == "start" else -1
        most = max(most, running)
    assert len(lines(log)) == 40
    assert most == 3


async def test_a_full_queue_takes_no_more_however_many_come_at_once(host_with: HostWith) -> None:
    host = await host_with(max_running=1, max_queued=2)
    first = await host.create(shell("sleep 1000"), "first")
    results = await asyncio.gather(
        *(host.create(shell("true"), f"r{n}", stdin=b"in") for n in range(20)), return_exceptions=True
    )
    queued = [job for job in results if isinstance(job, JobRecord)]
    assert len(queued) == 2
    assert all(isinstance(other, JobRecord | QueueFullError) for other in results)
    assert len(await host.unended()) == 3
    # Of what was refused nothing is left, and what is known already is still found.
    assert len(list((host.path / "jobs").glob("*/stdin"))) == 2
    assert (await host.create(shell("sleep 1000"), "first")).id == first.id
    with pytest.raises(RequestReusedError):
        await host.create(shell("true"), "first")
    await host.jobs.cancel(first, "", kill=True)
    for job in queued:
        assert (await host.ended(job)).state is JobState.SUCCEEDED


async def test_identities_take_turns(host_with: HostWith, tmp_path: Path) -> None:
    host = await host_with(max_running=1)
    log = tmp_path / "log"
    go = tmp_path / "go"
    os.mkfifo(go)
    first = await host.create(shell(f"read line < {go}"))
    jobs = [await host.create(shell(f"echo alice >> {log}"), identity="alice") for _ in range(5)]
    jobs += [await host.create(shell(f"echo bob >> {log}"), identity="bob") for _ in range(2)]
    jobs += [await host.create(shell(f"echo carol >> {log}"), identity="carol")]
    await asyncio.to_thread(go.write_text, "now\n")
    for job in (first, *jobs):
        await host.ended(job)
    assert lines(log) == ["alice", "bob", "carol", "alice", "bob", "alice", "alice", "alice"]


async def test_a_watch_of_a_job_that_waits(host_with: HostWith) -> None:
    host = await host_with(max_running=1)
    blocker = await host.create(shell("sleep 1000"))
    job = await host.create(shell("echo done"))
    states, output = [], b""
    async for event in host.jobs.watch(job, 0, None):
        if isinstance(event, JobRecord):
            states.append(event.state)
        else:
            output += event.data
        if states == [JobState.QUEUED]:
            await host.jobs.cancel(blocker, "", kill=True)
    assert states in (
        [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED],
        [JobState.QUEUED, JobState.SUCCEEDED],  # it was quicker than the watch
    )
    assert output == b"done\n"


# What must not keep a job, its slot, or those who wait for it


async def test_standard_input_that_cannot_be_removed(host_with: HostWith) -> None:
    """The job ends, whoever watches hears of it, and the next one starts."""
    host = await host_with(max_running=1)
    job = await host.create(shell("cat; read line", time_limit=1.0), stdin=b"given\n")
    next_one = await host.create(shell("echo next"))
    await host.watch_until(job, b"given\n")
    stdin = host.path / "jobs" / job.id / "stdin"
    stdin.unlink(missing_ok=True)
    stdin.mkdir()  # which unlink refuses, root's too
    (stdin / "in the way").touch()
    assert (await host.ended(job)).state.ended
    assert (await host.watch(next_one)).stdout == b"next\n"


class BrokenObserver:
    """Tells nobody, and fails."""

    def on_state(self, job: JobRecord) -> None:
        raise RuntimeError("on_state")

    async def before_end(self, job: JobRecord) -> None:
        raise RuntimeError("before_end")


class BrokenGate(OpenGate):
    """Fails when a job is to start."""

    broken = False

    async def permit(self, job: JobRecord) -> JobPermission:
        if self.broken:
            raise RuntimeError("permit")
        return await super().permit(job)


async def test_an_observer_that_fails(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, JobLimits(max_running=1), observer=BrokenObserver())
    await asyncio.wait_for(jobs.open(), DEADLINE)
    try:
        made = [await jobs.create("alice", f"r{n}", str(n), shell("true")) for n in range(3)]
        for job in made:
            assert (await end_of(jobs, job)).state is JobState.SUCCEEDED
    finally:
        await jobs.close()


async def end_of(jobs: Jobs, job: JobRecord) -> JobRecord:
    async def look() -> JobRecord:
        async for event in jobs.watch(job, None, None):
            if isinstance(event, JobRecord) and event.state.ended:
                return event
        raise AssertionError("a watch ends with the job's end")

    return await asyncio.wait_for(look(), DEADLINE)


async def test_a_start_that_fails_ends_the_job_and_frees_its_slot(tmp_path: Path) -> None:
    gate = BrokenGate()
    jobs = Jobs(tmp_path, JobLimits(max_running=1), gate=gate)
    await asyncio.wait_for(jobs.open(), DEADLINE)
    try:
        running = await jobs.create("alice", "r1", "1", shell("sleep 1000"))
        waiting = await jobs.create("alice", "r2", "2", shell("true"))
        gate.broken = True
        await jobs.cancel(running, "enough", kill=True)
        ended = await end_of(jobs, waiting)
        assert (ended.state, ended.reason) == (
            JobState.FAILED,
            "it could not be started: the server has failed",
        )
        gate.broken = False
        third = await jobs.create("alice", "r3", "3", shell("true"))
        assert (await end_of(jobs, third)).state is JobState.SUCCEEDED
        assert jobs.running_of("alice") == 0
    finally:
        await jobs.close()


@pytest.mark.parametrize(
    "record", [{"cause": "time limit"}, {"totals": "x", "exit_code": 0}, {"exit_code": 0, "gaps": [[0, 0]]}]
)
async def test_a_record_that_is_not_understood_ends_its_job(
    host_with: HostWith, record: dict[str, Any]
) -> None:
    host = await host_with(max_running=1)
    job = await host.create(shell("sleep 5"))
    next_one = await host.create(shell("echo next"))
    host.jobs.on_event(Ended(job.id, ExitRecord.from_json(record)))
    assert (await host.ended(job)).state is JobState.LOST
    assert (await host.watch(next_one)).stdout == b"next\n"


async def test_output_that_was_lost_is_said_whatever_became_of_the_job(host: JobHost) -> None:
    """What a supervisor notes of a full disk."""
    job = await host.create(shell("sleep 5"))
    lost = {"stdout": 12, "stderr": 0, "why": "No space left on device"}
    record = {"exit_code": 0, "totals": [20, 0], "gaps": [[8, 20], [0, 0]], "lost": lost}
    host.jobs.on_event(Ended(job.id, ExitRecord.from_json(record)))
    ended = await host.ended(job)
    assert ended.state is JobState.SUCCEEDED
    assert ended.reason == "12 bytes of standard output could not be stored: No space left on device"


async def test_output_that_cannot_be_read(host: JobHost, tmp_path: Path) -> None:
    """Whoever asks is told what kind of error it is; the name of a file is for the log alone."""
    go = tmp_path / "go"
    os.mkfifo(go)
    job = await host.create(shell(f"echo one; read line < {go}"))
    await host.watch_until(job, b"one\n")
    note = host.path / "jobs" / job.id / "stdout.gap"
    note.write_bytes(b"damaged " * 3)  # what says which part of the output was dropped
    for asked in (host.jobs.get(job.id), host.watch(job)):
        with pytest.raises(JobFilesError) as caught:
            await asked
        assert "files of the job cannot be used" in caught.value.told
        assert note.name not in caught.value.told
        assert note.name in str(caught.value)
    note.unlink()
    await asyncio.to_thread(go.write_text, "now\n")
    assert (await host.watch(job)).stdout == b"one\n"
