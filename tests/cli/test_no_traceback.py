"""Whatever stands on the command line and whatever a server says: one line, and no traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from remsvc_proto import RemSvc_pb2
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.client.hostile.lying_server import LyingServer

from .conftest import Remsvc

LONG = "x" * 100_000
DIRECTORY = "." if sys.platform == "win32" else "/"

BAD_INPUT = [
    ["jobs", "list", "--since", "99999999999999d"],
    ["jobs", "list", "--since", "9999-12-31T23:59:59-12:00"],
    ["jobs", "list", "--label", f"a={LONG}"],
    ["jobs", "show", ""],
    ["jobs", "show", LONG],
    ["jobs", "cancel", "x", "--reason", LONG],
    ["jobs", "wait", "x", "--timeout", "1e9"],
    ["run", "--output-limit", "9" * 30, "--", "true"],
    ["run", "--request-id", "", "--", "true"],
    ["run", "--env", f"A={LONG}", "--", "true"],
    ["run", "--", " "],
    ["run", "--shell", "none", "--", ""],
    ["ping", "--timeout", "1e-300", "-c", "1"],
    ["status", "-s", "127.0.0.1:99999"],
    ["status", "-s", LONG[:300]],
    ["status", "-s", "[::1%lo]:1"],
    ["status", "--ca-cert", DIRECTORY],
    ["status", "--cert", sys.executable, "--key", sys.executable],
    ["status", "--token-file", DIRECTORY],
    ["status", "--token-file", sys.executable],
    ["audit", "verify", DIRECTORY],
    ["audit", "verify", ""],
    ["audit", "verify", sys.executable],
    ["token", "list", DIRECTORY],
    ["token", "list", sys.executable],
    ["policy", "test", "--config", DIRECTORY, "--", "x"],
    ["policy", "test", "--config", sys.executable, "--", "x"],
    ["check-config", DIRECTORY],
    ["check-config", sys.executable],
    ["serve", "--config", DIRECTORY],
    ["init", sys.executable],
]


@pytest.mark.parametrize("words", BAD_INPUT, ids=lambda words: " ".join(words)[:40])
def test_bad_input_is_told(remsvc: Remsvc, words: list[str]) -> None:
    run = remsvc(*words, env={"REMSVC_SERVER": "127.0.0.1:1"})
    assert run.returncode in (1, 2, 255)
    assert run.stderr
    assert "internal error" not in run.stderr
    assert "Traceback" not in run.stderr


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingServer]:
    server = LyingServer()
    yield server
    server.close()


EVIL = "\x1b]0;owned\x07\r\n\x9b31m\u202e\u2028" + "x" * 100_000


def evil_job() -> jobs_pb2.Job:
    spec = jobs_pb2.JobSpec(shell_command=EVIL, labels={EVIL: EVIL}, user=EVIL, source=EVIL)
    return jobs_pb2.Job(id=EVIL, request_id=EVIL, identity=EVIL, reason=EVIL, spec=spec, state=jobs_pb2.LOST)


VERBS = [
    *(["jobs", "list"], ["jobs", "show", "x"], ["jobs", "wait", "x"], ["jobs", "cancel", "x"]),
    *(["jobs", "logs", "x"], ["jobs", "logs", "-f", "x"], ["run", "--", "x"], ["run", "--detach", "--", "x"]),
    *(["status"], ["ping", "-c", "1"]),
]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("kind", ["evil", "absurd", "noise"])
def test_nothing_that_a_server_says_breaks_the_program_or_the_terminal(
    remsvc: Remsvc, liar: LyingServer, kind: str, as_json: bool, words: list[str]
) -> None:
    job = evil_job()
    if kind == "absurd":
        job.create_time.seconds = 2**60
        job.stdout.total_bytes = -1
    answers = {
        "CreateJob": job.SerializeToString(),
        "GetJob": job.SerializeToString(),
        "CancelJob": job.SerializeToString(),
        "ListJobs": jobs_pb2.ListJobsResponse(jobs=[job]).SerializeToString(),
        "WatchJob": jobs_pb2.WatchJobResponse(job=job).SerializeToString(),
        "GetStatus": RemSvc_pb2.StatusMsg(msg=f"state={EVIL}", rc=-1).SerializeToString(),
    }
    if kind == "absurd":
        digits = f"state=OK uptime={'9' * 5000}s commands=1"
        answers["GetStatus"] = RemSvc_pb2.StatusMsg(msg=digits, rc=-(2**31)).SerializeToString()
    for method, answer in answers.items():
        liar.answers[method] = lambda _, answer=answer: [b"\xff\xff\xff" if kind == "noise" else answer]
    options = ["--json"] if as_json else []
    place = 2 if words[0] == "jobs" else 1
    run = remsvc(*words[:place], "-s", liar.target, *options, *words[place:])
    assert "internal error" not in run.stderr
    assert "Traceback" not in run.stderr
    for character in "\x1b\x07\r\x9b\u202e\u2028":
        assert character not in run.stdout + run.stderr
    if not as_json:
        assert len(run.stdout) < 1_000_000
        assert len(run.stderr) < 20_000
