"""The next command of a stream gets ready while one runs: what is decided then still holds when it starts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.conftest import Serve, ServerProcess
from tests.contract.client import Client, Stream, bearer, refused
from tests.contract.jobs import JobClient, spec, state
from tests.contract.processes import descendants
from tests.contract.waiting import wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the commands are POSIX shell")

Open = Callable[..., tuple[ServerProcess, Client]]


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def open_server(serve: Serve, audit: Path) -> Iterator[Open]:
    """``open_server(sections)``: a server with an audit log and these sections, and a client of it."""
    channels = []

    def start(sections: str = "") -> tuple[ServerProcess, Client]:
        server = serve(config(audit, sections))
        channels.append(grpc.insecure_channel(server.target))
        return server, Client(channels[-1], bearer("te"))

    yield start
    for channel in channels:
        channel.close()


def config(audit: Path, sections: str) -> str:
    return f"[server]\nport = 0\n[auth]\netl = te\n[audit]\nfile = {audit}\n{sections}"


def decisions(audit: Path) -> list[tuple[str, str]]:
    """Outcome and command of each decision in the audit log, oldest first."""
    records = [json.loads(line) for line in audit.read_text().splitlines()]
    return [(r["outcome"], r["command"]) for r in records if r["event"] == "decision"]


def until(path: Path) -> str:
    return f": >{path}.runs; until [ -e {path} ]; do sleep 0.01; done"


def begin(client: Client, audit: Path, go: Path, *texts: str) -> Stream:
    """A stream whose first command runs until ``go`` is there, and whose next one is ready to start."""
    stream = client.open_stream()
    stream.send(until(go), tid=1)
    for tid, text in enumerate(texts, 2):
        stream.send(text, tid=tid)
    wait_until(Path(f"{go}.runs").exists, "the first command to run")
    wait_until(lambda: len(decisions(audit)) == 2, "the second one to be ready")
    return stream


def answers(stream: Stream, count: int) -> list[Any]:
    return [next(stream) for _ in range(count)]


def test_a_policy_that_is_replaced_meanwhile_decides(open_server: Open, audit: Path, tmp_path: Path) -> None:
    server, client = open_server()
    stream = begin(client, audit, tmp_path / "go", f": >{tmp_path}/ran")
    (tmp_path / "server0.ini").write_text(config(audit, "[denylist]\n1 = ran\n"))
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: '"reloaded"' in audit.read_text(), "the new policy")
    (tmp_path / "go").touch()
    assert next(stream).tid == 1
    with refused(grpc.StatusCode.PERMISSION_DENIED):
        next(stream)
    client.run("true")
    assert not (tmp_path / "ran").exists()
    wait_until(lambda: len(decisions(audit)) == 4, "all decisions in the audit log")
    assert [outcome for outcome, _ in decisions(audit)] == ["allowed", "allowed", "refused", "allowed"]


def test_a_policy_that_permits_it_still_costs_nothing(open_server: Open, audit: Path, tmp_path: Path) -> None:
    server, client = open_server()
    stream = begin(client, audit, tmp_path / "go", "echo two", "echo three")
    for _ in range(3):
        before = audit.read_text().count('"reloaded"')
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda before=before: audit.read_text().count('"reloaded"') > before, "the reload")
    (tmp_path / "go").touch()
    assert [answer.out for answer in answers(stream, 3)] == ["", "two\n", "three\n"]
    stream.half_close()
    assert [outcome for outcome, _ in decisions(audit)] == ["allowed"] * 3, "each is decided once"
    assert client.status().msg.endswith("commands=3"), "what was taken back and started later was run once"


def test_a_stream_is_one_of_the_commands_that_may_run(open_server: Open, audit: Path, tmp_path: Path) -> None:
    """The one that is ready takes the place of the one before it, and no second one."""
    _, client = open_server("[identity etl]\nmax_running = 1\n")
    stream = begin(client, audit, tmp_path / "go", *(f"echo {n}" for n in range(2, 6)))
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        client.run("true")
    (tmp_path / "go").touch()
    assert [answer.rc for answer in answers(stream, 5)] == [0] * 5
    assert client.run("true").rc == 0, "a stream that waits for its caller runs nothing"
    stream.half_close()
    assert list(stream) == []


def test_what_would_be_too_early_is_asked_again_in_its_turn(
    open_server: Open, audit: Path, tmp_path: Path
) -> None:
    _, client = open_server("[identity etl]\nrate = 2/h\n")
    stream = begin(client, audit, tmp_path / "go", "echo two", "echo three")
    (tmp_path / "go").touch()
    assert [answer.tid for answer in answers(stream, 2)] == [1, 2]
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        next(stream)
    wait_until(lambda: len(decisions(audit)) == 3, "the refusal in the audit log")
    assert [outcome for outcome, _ in decisions(audit)] == ["allowed", "allowed", "refused"]


def test_what_waits_ends_with_its_caller(open_server: Open, audit: Path, tmp_path: Path) -> None:
    server, client = open_server()
    stream = begin(client, audit, tmp_path / "go", f": >{tmp_path}/ran")
    stream.cancel()
    wait_until(lambda: len(descendants(server.process.pid)) == 1, "all but the supervisor to end")
    client.run("true")  # what could start has done so
    assert not (tmp_path / "ran").exists()


def test_nothing_that_waits_starts_once_the_server_shuts_down(
    open_server: Open, audit: Path, tmp_path: Path
) -> None:
    server, client = open_server()
    stream = begin(client, audit, tmp_path / "go", f": >{tmp_path}/ran")
    server.process.terminate()
    wait_until(lambda: "stopping" in server.log, "the server to shut down")
    (tmp_path / "go").touch()
    assert next(stream).tid == 1
    with refused(grpc.StatusCode.UNAVAILABLE):
        next(stream)
    assert server.process.wait(30) == 0
    assert not (tmp_path / "ran").exists()


def test_a_command_whose_time_is_up_does_not_take_the_next_with_it(
    open_server: Open, audit: Path, tmp_path: Path
) -> None:
    _, client = open_server("[identity etl]\ntime_limit_ms = 300\n")
    stream = begin(client, audit, tmp_path / "never", "echo two")
    first, second = answers(stream, 2)
    assert (first.rc, first.err) == (1, "process timed out")
    assert second.out == "two\n"


def test_a_command_that_somebody_cancels_does_not_take_the_next_with_it(
    open_server: Open, audit: Path, tmp_path: Path
) -> None:
    _, client = open_server()
    stream = begin(client, audit, tmp_path / "never", "echo two")
    jobs = JobClient(client.channel, bearer("te"))
    (running,) = jobs.list(states=["RUNNING"]).jobs
    jobs.cancel(running.id)
    first, second = answers(stream, 2)
    assert first.rc == 128 + signal.SIGKILL
    assert (second.tid, second.out) == (2, "two\n")


def test_a_stream_waits_for_the_job_that_has_taken_its_place(open_server: Open, tmp_path: Path) -> None:
    """Between two of its commands, a job that waits may start: the stream then goes on after that one."""
    _, client = open_server("[identity etl]\nmax_running = 1\n")
    jobs = JobClient(client.channel, bearer("te"))
    first, second = tmp_path / "first", tmp_path / "second"
    stream = client.open_stream()
    stream.send(until(first), tid=1)
    wait_until(Path(f"{first}.runs").exists, "the first command to run")
    queued = [jobs.create(spec(until(second))), jobs.create(spec("true"))]
    assert [state(job) for job in queued] == ["QUEUED", "QUEUED"]
    first.touch()
    assert next(stream).tid == 1
    wait_until(Path(f"{second}.runs").exists, "the job to take the place")
    stream.send(f"[ -e {second} ] && ls {tmp_path}", tid=2)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        client.run("true")
    second.touch()
    assert (next(stream).rc, state(jobs.get(queued[0].id))) == (0, "SUCCEEDED")
    stream.half_close()
    assert list(stream) == []
    assert jobs.watch(queued[1].id).states[-1] == "SUCCEEDED"
