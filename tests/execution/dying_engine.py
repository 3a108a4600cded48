"""A process with the durable-jobs engine in it that kills itself at the N-th line of the engine's code.

Arguments: state directory, N (0: live on), shell text. Runs one job, as request ``once`` of
``alice``, watches it to its end, closes the engine, and prints how many lines were run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from remsvc.execution.jobs import jobs as engine
from remsvc.execution.jobs.model import JobContent, JobLimits, content_digest

SOURCES = str(Path(engine.__file__).parents[1])
STDIN = b"input"

lines = 0


def spec(script: str) -> JobContent:
    return JobContent(shell_command=script, kill_grace=5.0, output_limit=1 << 20)


async def run(state_dir: str, script: str) -> None:
    jobs = engine.Jobs(Path(state_dir), JobLimits())
    await jobs.open()
    job = await jobs.create("alice", "once", content_digest(spec(script), STDIN), spec(script), STDIN)
    async for _ in jobs.watch(job, 0, 0):
        pass
    await jobs.close()


def main(state_dir: str, last: int, script: str) -> None:
    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        global lines
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        if event == "line":
            lines += 1
            if lines == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    asyncio.run(run(state_dir, script))
    sys.settrace(None)
    print(lines)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
