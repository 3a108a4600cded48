"""Output that is passed on when the command has ended already."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable

import pytest

from remsvc.execution.engine import Engine, Process, ProcessEnd, ProcessSpec
from remsvc.execution.posix import PosixEngine
from tests.execution.job_host import JobHost, program
from tests.execution.processes import eventually, processes_with

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="only bash has process substitution")

SLOW = "while read line; do sleep 0.2; echo got $line; done"
PASSED_ON = {
    "one": f"exec > >({SLOW}); echo a; echo b; echo c",
    "error output": f"exec 2> >({SLOW} >&1); echo a >&2; echo b >&2; echo c >&2",
    "two in a row": f"exec > >({SLOW} | sed s/^//); echo a; echo b; echo c",
    "an exit code": f"exec > >({SLOW}); echo a; echo b; echo c; exit 7",
}


@pytest.fixture
def run(engine: Engine) -> Callable[[str], Process]:
    def run(text: str) -> Process:
        assert BASH is not None
        return engine.start(ProcessSpec((BASH, "-c", text), {"PATH": os.environ["PATH"]}, "/"))

    return run


@pytest.mark.parametrize("script", PASSED_ON.values(), ids=PASSED_ON.keys())
async def test_it_is_waited_for(run: Callable[[str], Process], script: str) -> None:
    outcome: ProcessEnd = await asyncio.wait_for(run(script).wait(), 30)
    assert outcome.stdout.head == b"got a\ngot b\ngot c\n"
    assert outcome.exit_code == (7 if "exit 7" in script else 0)


@pytest.mark.parametrize(
    "script",
    [
        "sleep {0} &",
        "setsid sleep {0} < /dev/null &",
        "tail -f /dev/null | grep {0} &",
        "cat {0} 2>/dev/null | sleep {0} &",
    ],
    ids=["child", "session", "pipeline that goes on", "nothing to read"],
)
async def test_what_merely_holds_it_is_not(run: Callable[[str], Process], script: str, duration: str) -> None:
    outcome = await asyncio.wait_for(run(f"{script.format(duration)} echo done").wait(), 3)
    assert outcome.stdout.head == b"done\n"
    for pid in processes_with(duration):
        os.kill(pid, signal.SIGKILL)


async def test_what_is_cut_off_is_said(host: JobHost, duration: str) -> None:
    assert BASH is not None
    watched = await host.run(program(BASH, "-c", f"exec > >(read line; sleep {duration}; echo late); echo a"))
    assert watched.job.state.value == "SUCCEEDED"
    assert "output may be cut off" in watched.job.reason
    await eventually(lambda: processes_with(duration), "what passes it on is not killed")
    for pid in processes_with(duration):
        os.kill(pid, signal.SIGKILL)


async def test_a_cancellation_does_not_wait(host: JobHost, duration: str) -> None:
    assert BASH is not None
    job = await host.create(program(BASH, "-c", f"exec > >(cat; sleep {duration}); echo a; sleep {duration}"))
    await eventually(lambda: processes_with(duration), "it runs")
    await host.jobs.cancel(job, "enough", kill=True)
    assert (await host.ended(job)).state.value == "CANCELLED"
    assert not processes_with(duration)


async def test_the_wait_can_be_switched_off() -> None:
    assert BASH is not None
    engine = PosixEngine(output_wait=0.0)
    await engine.open()
    try:
        script = f"exec > >({SLOW}); echo a; echo b; echo c"
        spec = ProcessSpec((BASH, "-c", script), {"PATH": os.environ["PATH"]}, "/")
        outcome = await asyncio.wait_for(engine.start(spec).wait(), 30)
        assert outcome.stdout.head != b"got a\ngot b\ngot c\n"
    finally:
        await engine.close()
