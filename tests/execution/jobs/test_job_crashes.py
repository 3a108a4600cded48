"""``kill -9`` of the engine between any two lines of its code: the job runs once, and all of it is there.

``REMSVC_FAULT_ROUNDS`` says how many lines to try; 0 stands for each of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest

from remsvc.job_state import JobState
from tests.execution import dying_engine
from tests.execution.job_host import JobHost

from .test_jobs import lines

ROUNDS = int(os.environ.get("REMSVC_FAULT_ROUNDS", "20"))


async def run_and_die(state_dir: Path, last: int, script: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, dying_engine.__file__, str(state_dir), str(last), script),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.stdout is not None
    output = (await process.stdout.read()).decode()
    return await process.wait(), output


@pytest.mark.timeout(60 + 2 * (ROUNDS or 5000))
async def test_killed_at_any_line(tmp_path: Path) -> None:
    def script(number: int) -> str:
        return f"echo run >> {tmp_path}/log{number}; cat; seq 1 2000; echo error >&2; sleep 0.02; exit 3"

    (tmp_path / "whole").mkdir()
    code, output = await run_and_die(tmp_path / "whole", 0, script(0))
    assert code == 0
    total = int(output)
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"{total} lines, seed {seed}")
    chosen = list(range(1, total + 1))
    if ROUNDS:
        chosen = sorted(random.Random(seed).sample(chosen, min(ROUNDS, total)))
    for last in chosen:
        await check(JobHost(tmp_path / f"state{last}"), last, script(last), tmp_path / f"log{last}")


async def check(host: JobHost, last: int, script: str, log: Path) -> None:
    code, _ = await run_and_die(host.path, last, script)
    assert code in (-9, 0), f"line {last}"
    try:
        await host.open()
        job = await host.create(dying_engine.spec(script), "once", stdin=dying_engine.STDIN)
        watched = await host.watch(job)
        assert (watched.job.state, watched.job.exit_code) == (JobState.FAILED, 3), (last, watched.job)
        assert watched.stdout == dying_engine.STDIN + b"".join(b"%d\n" % n for n in range(1, 2001)), last
        assert watched.stderr == b"error\n", last
        assert lines(log) == ["run"], last
        assert watched.job.started is not None, last
        assert not list((host.path / "jobs").rglob("stdin"))
    finally:
        await host.end()
    files = {path.name for path in host.path.iterdir()}
    assert {name for name in files if not name.startswith("supervisor")} <= {"journal.sqlite", "jobs"}, last
    assert len(list((host.path / "jobs").iterdir())) == 1, last
