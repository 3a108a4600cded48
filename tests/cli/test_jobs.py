"""``remsvc jobs``: list, show, wait, cancel and logs."""

from __future__ import annotations

import base64
import json
import random
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.client.scripted_jobs import ScriptedJobs

from .conftest import DEADLINE, Remsvc, Started, wait_until

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="durable jobs are for POSIX")

RANDOM = random.Random(8).randbytes(1_000_000)


def one_of_each(jobs: ScriptedJobs) -> None:
    """Jobs in four states, the first the oldest."""
    spec = jobs_pb2.JobSpec(shell_command="echo a\tb\n\x1b[31m", labels={"team": "a"})
    jobs.change(jobs.add(spec=spec, request_id="r1"), jobs_pb2.SUCCEEDED, exit_code=0)
    argv = jobs_pb2.Argv(args=["printf", "a b", "$HOME", "\x1b]0;owned\x07"])
    jobs.change(jobs.add(spec=jobs_pb2.JobSpec(argv=argv, labels={"team": "a"})), jobs_pb2.LOST)
    jobs.change(jobs.add(spec=jobs_pb2.JobSpec(shell_command="false")), jobs_pb2.FAILED, exit_code=1)
    jobs.add(spec=jobs_pb2.JobSpec(shell_command="sleep 1"), state=jobs_pb2.RUNNING)


def test_list_prints_columns_separated_by_tabs(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    one_of_each(jobs)
    run = remsvc("jobs", "list", "-s", jobs.target)
    assert (run.returncode, run.stderr) == (0, "")
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    assert [(row[0], row[1], row[2], row[6], row[7]) for row in rows] == [
        ("job4", "RUNNING", "", "", "sleep 1"),
        ("job3", "FAILED", "1", "", "false"),
        ("job2", "LOST", "", "", r"printf 'a b' '$HOME' '\x1b]0;owned\x07'"),
        ("job1", "SUCCEEDED", "0", "r1", r"echo a\tb\n\x1b[31m"),
    ]
    assert all(datetime.fromisoformat(row[3]).tzinfo for row in rows)
    assert [bool(row[5]) for row in rows] == [False, True, True, True]


def test_list_prints_json(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    assert remsvc("jobs", "list", "-s", jobs.target, "--json").stdout == "[]\n"
    one_of_each(jobs)
    listed = json.loads(remsvc("jobs", "list", "-s", jobs.target, "--json").stdout)
    assert [(job["id"], job["state"], job["rc"]) for job in listed] == [
        ("job4", "RUNNING", None),
        ("job3", "FAILED", 1),
        ("job2", "LOST", None),
        ("job1", "SUCCEEDED", 0),
    ]
    assert listed[3]["command"] == "echo a\tb\n\x1b[31m"
    assert listed[2]["argv"] == ["printf", "a b", "$HOME", "\x1b]0;owned\x07"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--state", "failed", "--state", "LOST"], ["job3", "job2"]),
        (["--label", "team=a"], ["job2", "job1"]),
        (["--label", "team=a", "--state", "LOST"], ["job2"]),
        (["--label", "team=b"], []),
        (["--since", "1h"], ["job4", "job3", "job2", "job1"]),
        (["--since", "2099-01-01"], []),
        (["--since", "2020-01-01T00:00:00Z"], ["job4", "job3", "job2", "job1"]),
        (["--limit", "4"], ["job4", "job3", "job2", "job1"]),
    ],
)
def test_list_filters(remsvc: Remsvc, jobs: ScriptedJobs, filters: list[str], found: list[str]) -> None:
    one_of_each(jobs)
    run = remsvc("jobs", "list", "-s", jobs.target, *filters)
    assert (run.returncode, run.stderr) == (0, "")
    assert [line.split("\t")[0] for line in run.stdout.splitlines()] == found


def test_list_says_that_there_are_more(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    one_of_each(jobs)
    run = remsvc("jobs", "list", "-s", jobs.target, "--limit", "3")
    assert len(run.stdout.splitlines()) == 3
    assert run.stderr == "remsvc: warning: there are more than these 3: see --limit\n"


@pytest.mark.parametrize("limit", [100, 999, 1000, 2500])
def test_list_goes_through_pages(remsvc: Remsvc, jobs: ScriptedJobs, limit: int) -> None:
    for _ in range(2100):
        jobs.add()
    run = remsvc("jobs", "list", "-s", jobs.target, "--limit", limit)
    assert len(run.stdout.splitlines()) == min(limit, 2100)


@pytest.mark.parametrize("since", ["", "yesterday", "5", "5y", "-1h", "2030-13-01", "99999999999w"])
def test_a_time_that_is_none_is_told(remsvc: Remsvc, since: str) -> None:
    run = remsvc("jobs", "list", "--since", since)
    assert run.returncode == 2
    assert f"{since!r} is not a time" in run.stderr


def test_show_prints_everything(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    one_of_each(jobs)
    run = remsvc("jobs", "show", "-s", jobs.target, "job1")
    assert (run.returncode, run.stderr) == (0, "")
    fields = dict(line.split("\t") for line in run.stdout.splitlines())
    assert (
        fields.items()
        >= {
            "id": "job1",
            "request_id": "r1",
            "state": "SUCCEEDED",
            "rc": "0",
            "command": r"echo a\tb\n\x1b[31m",
            "labels": '{"team": "a"}',
        }.items()
    )


@on_posix
def test_show_json_of_a_real_job(remsvc: Remsvc, server: ServerProcess) -> None:
    run = remsvc("run", "-s", server.target, "--detach", "--", "printf 12345; echo 1 >&2; exit 3")
    job_id = run.stdout.strip()
    assert remsvc("jobs", "wait", "-s", server.target, job_id).returncode == 3
    job = json.loads(remsvc("jobs", "show", "-s", server.target, "--json", job_id).stdout)
    assert (
        job.items()
        >= {
            "id": job_id,
            "state": "FAILED",
            "rc": 3,
            "command": "printf 12345; echo 1 >&2; exit 3",
            "stdout_bytes": 5,
            "stderr_bytes": 2,
        }.items()
    )
    assert job["request_id"]
    assert job["identity"]
    times = [datetime.fromisoformat(job[f"{name}_at"]) for name in ("created", "started", "ended")]
    assert times == sorted(times)


def test_wait_prints_the_ended_job(started: Started, jobs: ScriptedJobs) -> None:
    job = jobs.add(b"not shown")
    process = started("jobs", "wait", "-s", jobs.target, "--json", "job1")
    wait_until(lambda: jobs.watches)
    jobs.stop()
    jobs.start()
    jobs.change(job, jobs_pb2.FAILED, exit_code=5)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 5
    assert json.loads(out)["state"] == "FAILED"
    assert err.decode() == f"remsvc: warning: connection to {jobs.target} lost, reconnecting\n"


def test_wait_gives_up_in_time(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    jobs.add()
    run = remsvc("jobs", "wait", "-s", jobs.target, "--timeout", "0.3", "job1")
    assert (run.returncode, run.stdout) == (255, "")
    assert run.stderr == (f"remsvc: {jobs.target}: DEADLINE_EXCEEDED: the job has not ended within 0.3 s\n")


@pytest.mark.parametrize("verb", [["wait"], ["logs", "-f"]])
def test_control_c_leaves_the_job(started: Started, jobs: ScriptedJobs, verb: list[str]) -> None:
    jobs.add()
    process = started("jobs", *verb, "-s", jobs.target, "job1")
    wait_until(lambda: jobs.watches)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert jobs.asked("CancelJob") == []


def test_cancel_passes_on_how_and_why(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    jobs.add()
    run = remsvc("jobs", "cancel", "-s", jobs.target, "--kill", "--reason", "because", "job1")
    assert (run.returncode, run.stdout, run.stderr) == (0, "job job1 is being killed\n", "")
    run = remsvc("jobs", "cancel", "-s", jobs.target, "job1", "--json")
    assert json.loads(run.stdout)["id"] == "job1"
    first, second = jobs.asked("CancelJob")
    assert (first.kill, first.reason, second.kill, second.reason) == (True, "because", False, "")
    jobs.finish()
    run = remsvc("jobs", "cancel", "-s", jobs.target, "job2")
    assert (run.returncode, run.stdout) == (0, "job job2 has ended: SUCCEEDED\n")


@on_posix
def test_cancel_ends_a_real_job(remsvc: Remsvc, server: ServerProcess) -> None:
    job_id = remsvc("run", "-s", server.target, "--detach", "--", "sleep 300").stdout.strip()
    assert remsvc("jobs", "cancel", "-s", server.target, "--reason", "wrong host", job_id).returncode == 0
    run = remsvc("jobs", "wait", "-s", server.target, job_id)
    assert (run.returncode, run.stderr) == (130, f"remsvc: job {job_id} was cancelled: wrong host\n")


@pytest.mark.parametrize("verb", [["show"], ["wait"], ["cancel"], ["logs"], ["logs", "-f"]])
def test_a_job_that_is_not_there_is_told(remsvc: Remsvc, jobs: ScriptedJobs, verb: list[str]) -> None:
    run = remsvc("jobs", *verb, "-s", jobs.target, "nope")
    assert (run.returncode, run.stdout) == (255, "")
    assert run.stderr == f"remsvc: {jobs.target}: NOT_FOUND: there is no such job\n"
    run = remsvc("jobs", *verb, "-s", jobs.target, "")
    assert (run.returncode, run.stderr) == (2, "remsvc: the job's id must not be empty\n")


def test_logs_are_bytes_and_stay_apart(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    jobs.finish(RANDOM, b"\x00\xff\r\n", exit_code=1)
    for follow in ([], ["-f"]):
        run = remsvc("jobs", "logs", "-s", jobs.target, *follow, "job1", text=False)
        assert (run.returncode, run.stdout, run.stderr) == (0, RANDOM, b"\x00\xff\r\n")
        run = remsvc("jobs", "logs", "-s", jobs.target, *follow, "--stream", "out", "job1", text=False)
        assert (run.returncode, run.stdout, run.stderr) == (0, RANDOM, b"")
        run = remsvc("jobs", "logs", "-s", jobs.target, *follow, "--stream", "err", "job1", text=False)
        assert (run.returncode, run.stdout, run.stderr) == (0, b"\x00\xff\r\n", b"")


def test_logs_of_a_running_job_end_with_what_there_is(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    jobs.add().chunk = 1000
    run = remsvc("jobs", "logs", "-s", jobs.target, "job1", text=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
    jobs.write(jobs.jobs["job1"], RANDOM[:100_000], b"err")
    for arguments, out, err in (
        (["job1"], RANDOM[:100_000], b"err"),
        (["--stream", "err", "job1"], b"err", b""),
    ):
        run = remsvc("jobs", "logs", "-s", jobs.target, *arguments, text=False)
        assert (run.returncode, run.stdout, run.stderr) == (0, out, err)


def test_logs_follow_through_a_restart(started: Started, jobs: ScriptedJobs, tmp_path: Path) -> None:
    job = jobs.add(b"one ")
    with (tmp_path / "out").open("wb") as out:
        process = started("jobs", "logs", "-s", jobs.target, "-f", "job1", stdout=out)
        wait_until(lambda: (tmp_path / "out").read_bytes() == b"one ")
        jobs.stop()
        jobs.write(job, b"two ")
        jobs.start()
        wait_until(lambda: (tmp_path / "out").read_bytes() == b"one two ")
        jobs.write(job, b"three")
        jobs.change(job, jobs_pb2.FAILED, exit_code=3)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"one two three"
    assert err.decode() == f"remsvc: warning: connection to {jobs.target} lost, reconnecting\n"


def test_logs_say_where_bytes_were_dropped(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    job = jobs.finish(RANDOM)
    job.message.stdout.MergeFrom(jobs_pb2.Output(head_bytes=1000, dropped_bytes=500_000))
    run = remsvc("jobs", "logs", "-s", jobs.target, "job1", text=False)
    assert run.stdout == RANDOM[:1000] + RANDOM[501_000:]
    assert run.stderr == (
        b"remsvc: warning: 500000 bytes of stdout are missing here: the server did not keep them\n"
    )


@pytest.mark.parametrize("verb", ["run", "logs"])
def test_it_is_told_how_much_output_was_lost_and_why(remsvc: Remsvc, jobs: ScriptedJobs, verb: str) -> None:
    reason = "6 bytes of stdout could not be written: No space left on device"
    job = jobs.add(b"0123456789", request_id="r")
    job.message.stdout.MergeFrom(jobs_pb2.Output(head_bytes=4, dropped_bytes=6))
    jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0, reason=reason)
    words = ["--request-id", "r", "--", "x"] if verb == "run" else ["job1"]
    run = remsvc(*([verb] if verb == "run" else ["jobs", verb]), "-s", jobs.target, *words)
    assert (run.returncode, run.stdout) == (0, "0123")
    assert run.stderr.splitlines() == [
        "remsvc: warning: the last 6 bytes of stdout are missing: the server did not keep them",
        f"remsvc: warning: job job1: {reason}",
    ]


def test_wait_says_how_much_output_was_lost_and_why(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    job = jobs.add(b"0123456789")
    job.message.stdout.MergeFrom(jobs_pb2.Output(head_bytes=4, dropped_bytes=6))
    jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0, reason="No space left on device")
    run = remsvc("jobs", "wait", "-s", jobs.target, "job1")
    assert (run.returncode, run.stdout) == (0, "")
    assert run.stderr.splitlines() == [
        "remsvc: warning: the server did not keep 6 bytes of stdout",
        "remsvc: warning: job job1: No space left on device",
    ]


def test_output_that_the_server_has_lost_is_told_and_the_logs_end(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    job = jobs.finish(b"0123456789")
    job.message.stdout.MergeFrom(jobs_pb2.Output(total_bytes=15, head_bytes=15))
    run = remsvc("jobs", "logs", "-s", jobs.target, "job1")
    assert (run.returncode, run.stdout) == (0, "0123456789")
    told = run.stderr.splitlines()
    assert told[0].endswith(f"the job's end had come with all its output; asking {jobs.target} again")
    assert told[1:] == ["remsvc: warning: 5 bytes of stdout are missing here: the server has lost them"]


def test_logs_of_a_running_job_end_where_the_rest_was_dropped(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    job = jobs.add(b"0123456789")
    job.message.stdout.MergeFrom(jobs_pb2.Output(total_bytes=10, head_bytes=4, dropped_bytes=6))
    assert remsvc("jobs", "logs", "-s", jobs.target, "job1").stdout == "0123"


def test_many_gaps_are_told_in_few_lines(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    job = jobs.finish(RANDOM)
    job.chunk, job.leap = 100, 50
    run = remsvc("jobs", "logs", "-s", jobs.target, "job1", text=False)
    assert run.stdout == b"".join(RANDOM[at : at + 100] for at in range(0, len(RANDOM), 150))
    said = run.stderr.decode().splitlines()
    assert said[:3] == 3 * [
        "remsvc: warning: 50 bytes of stdout are missing here: the server did not keep them"
    ]
    assert said[3] == "remsvc: warning: more of stdout is missing from here on"
    gaps = len(range(150, len(RANDOM), 150))
    assert said[4:] == [f"remsvc: warning: {50 * gaps} bytes of stdout are missing, in {gaps} places"]


def test_logs_for_machines(remsvc: Remsvc, jobs: ScriptedJobs) -> None:
    job = jobs.finish(RANDOM[:3000], b"e")
    job.chunk = 1000
    job.message.stdout.MergeFrom(jobs_pb2.Output(head_bytes=1000, dropped_bytes=500))
    run = remsvc("jobs", "logs", "-s", jobs.target, "--json", "job1")
    pieces = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(piece["stream"], piece["offset"], piece["dropped"]) for piece in pieces] == [
        ("stdout", 0, 0),
        ("stderr", 0, 0),
        ("stdout", 1500, 500),
        ("stdout", 2500, 0),
    ]
    data = b"".join(base64.b64decode(piece["base64"]) for piece in pieces if piece["stream"] == "stdout")
    assert data == RANDOM[:1000] + RANDOM[1500:3000]
