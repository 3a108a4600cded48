"""Triggerers that are cut off at any instant, and that run the same trigger side by side: every
command runs once, and the result is the true one."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from test_job_log import LogReader, log  # noqa: F401  a fixture
from tests.conftest import Serve
from triggering import Triggerer, fire, restored, results, task_instance, trigger, until

from remsvc.errors import UnavailableError
from remsvc_provider.running import patience

ROUNDS = 24


def counted(trace: Path, name: str, work: str = "") -> str:
    """A command that leaves a line for each time it runs."""
    return f"echo {name} >> {trace}; {work or 'true'}"


@pytest.mark.timeout(180)
async def test_cut_off_at_random_instants(conn_id, tmp_path: Path, log: LogReader):  # noqa: F811
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for number in range(ROUNDS):
        trace = tmp_path / f"trace{number}"
        ti = task_instance(task_id=f"round{number}")
        lines = "for n in 1 2 3 4 5; do echo line $n; echo grüße $n >&2; sleep 0.03; done"
        commands = [counted(trace, "a", lines), counted(trace, "b", "echo b"), counted(trace, "c", "exit 3")]
        one = trigger(conn_id, *commands, ti=ti, parallel=chance.choice([1, 1, 2]))
        cuts = 0
        while True:
            triggerer = Triggerer(restored(one, ti))
            await asyncio.wait([triggerer.task], timeout=chance.uniform(0, 0.3))
            if triggerer.task.done():
                break
            await triggerer.stop()
            cuts += 1
            if cuts == 5:
                triggerer = Triggerer(restored(one, ti))
                await triggerer.task
                break
        (event,) = triggerer.events
        assert sorted(trace.read_text().split()) == ["a", "b", "c"], f"round {number}"
        assert event["state"] == "FAILED"
        assert event["error_msg"] == "command 3 (commands[2]) ended with rc 3"
        out, err = (event["results"][1][name] for name in ("out", "err"))
        assert out == "".join(f"line {n}\n" for n in range(1, 6))
        assert err == "".join(f"grüße {n}\n" for n in range(1, 6))
        assert event["results"][2]["out"] == "b\n"
        # What the last triggerer has logged is whole.
        assert log.lines("1 out")[-5:] == [f"line {n}" for n in range(1, 6)]
        assert log.lines("1 err")[-5:] == [f"grüße {n}" for n in range(1, 6)]


async def test_side_by_side_with_a_twin(conn_id, tmp_path: Path):
    for number in range(5):
        trace = tmp_path / f"trace{number}"
        ti = task_instance(task_id=f"twins{number}")
        one = trigger(conn_id, *(counted(trace, name, f"echo {name}") for name in "abcd"), ti=ti)
        events = await asyncio.gather(*(fire(restored(one, ti)) for _ in range(3)))
        assert trace.read_text().split() == ["a", "b", "c", "d"]
        assert all(event == events[0] for event in events)
        assert [result["out"] for result in results(events[0])] == ["a\n", "b\n", "c\n", "d\n"]


async def test_a_retry_runs_again(conn_id, tmp_path: Path):
    trace = tmp_path / "trace"
    ti = task_instance()
    for number in (1, 2):
        attempt = task_instance(**{**vars(ti), "try_number": number})
        event = await fire(trigger(conn_id, counted(trace, str(number)), ti=attempt))
        assert event["state"] == "SUCCESS"
    assert trace.read_text().split() == ["1", "2"]


async def test_a_run_of_the_same_name_runs_again(conn_id, tmp_path: Path):
    """A DAG run may be deleted and made again, with the same id and the same try number."""
    trace = tmp_path / "trace"
    names = {"dag_id": "dag", "run_id": "scheduled__2030-01-01", "task_id": "remote"}
    for _ in range(2):
        await fire(trigger(conn_id, counted(trace, "x"), ti=task_instance(**names)))
    assert trace.read_text().split() == ["x", "x"]


@pytest.mark.timeout(120)
async def test_the_server_is_killed_while_the_trigger_watches(serve: Serve, connect: Any, tmp_path: Path):
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    state = ("--state-dir", str(tmp_path / "state"))
    server = serve("", *state)
    conn_id = connect(f"remsvc://{server.target}")
    for number in range(4):
        trace = tmp_path / f"trace{number}"
        lines = "for n in $(seq 20); do echo $n; sleep 0.05; done"
        running = asyncio.create_task(
            fire(trigger(conn_id, counted(trace, "a", lines), counted(trace, "b", "echo b")))
        )
        await until(lambda trace=trace: trace.exists())
        await asyncio.sleep(chance.uniform(0, 1.2))
        server.kill()
        server = await asyncio.to_thread(serve, "", *state, "--port", str(server.port))
        event = await running
        assert event["state"] == "SUCCESS", event
        assert trace.read_text().split() == ["a", "b"]
        assert results(event)[0]["out"] == "".join(f"{n}\n" for n in range(1, 21))


async def test_a_trigger_that_may_have_run_before_waits_for_the_server(
    scripted_jobs,
    connect,
    log: LogReader,  # noqa: F811
):
    """Its commands may be running: it does not give up after three attempts."""
    scripted_jobs.stop()
    one = trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", deferred_at=time.time() - 60)
    running = asyncio.create_task(fire(one))
    await until(lambda: "trying again in 4 s" in log.text)
    assert not running.done()
    scripted_jobs.start()
    await until(lambda: scripted_jobs.jobs)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await one.cleanup()


class SilentServer:
    """In place of the access to a server that never answers."""

    target = "server:1"

    def __init__(self, *, sent: bool) -> None:
        self._sent = sent

    async def call(self, call: Any) -> Any:
        raise UnavailableError("UNAVAILABLE", "no answer", self.target, sent=self._sent)


@pytest.mark.parametrize("sent", [False, True])
async def test_that_nothing_was_sent_is_told_only_where_it_is_certain(sent: bool, monkeypatch):
    monkeypatch.setattr(patience, "FIRST_DELAY", 0.01)
    told: list[str] = []
    calls = patience.Patience(cast("Any", SilentServer(sent=sent)), told.append, forever=False)
    with pytest.raises(UnavailableError) as caught:
        await calls.insist(lambda client: client.connect())
    assert caught.value.sent is sent
    assert ["nothing was sent" in line for line in told] == [not sent, not sent]


async def test_a_server_that_is_down_is_tried_three_times(scripted_jobs, connect):
    scripted_jobs.stop()
    event = await fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a", deferred_at=time.time()))
    assert event["state"] == "FAILED"
    assert "UNAVAILABLE" in event["error_msg"]
    assert event["error_msg"].endswith("; nothing was sent in 3 attempts")
