"""A state directory with the durable-jobs engine on it: opened, closed, opened again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remsvc.execution.jobs.files import Piece
from remsvc.execution.jobs.jobs import Jobs
from remsvc.execution.jobs.journal import Filter
from remsvc.execution.jobs.model import JobContent, JobLimits, JobRecord, content_digest
from remsvc.job_state import JobState

from .processes import DEADLINE, supervisors_of

OUTPUT_LIMIT = 1 << 20
UNENDED = (JobState.QUEUED, JobState.RUNNING)

_numbers = itertools.count(1)


def shell(text: str, **options: Any) -> JobContent:
    """A job that runs shell text, with the defaults that a server would fill in."""
    return JobContent(**{"shell_command": text, "kill_grace": 5.0, "output_limit": OUTPUT_LIMIT, **options})


def program(*argv: str, **options: Any) -> JobContent:
    """A job that runs a program without a shell."""
    return JobContent(**{"argv": argv, "kill_grace": 5.0, "output_limit": OUTPUT_LIMIT, **options})


@dataclass
class Watched:
    """All that a watch told: the states one after another, and each output put together.

    ``gaps`` are the pieces that were left out: stream, from, up to.
    """

    job: JobRecord
    states: list[JobState] = field(default_factory=list)
    stdout: bytes = b""
    stderr: bytes = b""
    gaps: list[tuple[str, int, int]] = field(default_factory=list)


class JobHost:
    """What a test has in place of a server.

    Args:
        path: the state directory; made where it does not exist.
        limits: the engine's.
    """

    def __init__(self, path: Path, limits: JobLimits | None = None) -> None:
        self.path = path
        self.limits = limits or JobLimits()
        self._jobs: Jobs | None = None
        path.mkdir(mode=0o700, exist_ok=True)

    @property
    def jobs(self) -> Jobs:
        """The engine, while it is open."""
        assert self._jobs is not None
        return self._jobs

    async def open(self) -> Jobs:
        self._jobs = Jobs(self.path, self.limits)
        await asyncio.wait_for(self._jobs.open(), DEADLINE)
        return self._jobs

    async def close(self) -> None:
        """Close the engine, as a server does that is told to stop. What runs goes on."""
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            await asyncio.wait_for(jobs.close(), DEADLINE)

    async def reopen(self) -> Jobs:
        await self.close()
        return await self.open()

    async def end(self) -> None:
        """Cancel what runs, close, and leave no process behind."""
        if self._jobs is not None:
            for job in await self.unended():
                await self.jobs.cancel(job, "the test is over", kill=True)
            for job in await self.unended():
                await self.ended(job)
        await self.close()
        for pid in self.supervisors():
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):  # supervisors that outlived their engine
                pass

    def supervisors(self) -> set[int]:
        """Pids of the supervisors of this state directory."""
        return supervisors_of(self.path)

    def kill_supervisor(self) -> None:
        (pid,) = self.supervisors()
        os.kill(pid, signal.SIGKILL)

    async def unended(self) -> list[JobRecord]:
        return (await self.jobs.select(Filter(states=UNENDED), 1000)).jobs

    async def create(
        self, content: JobContent, request_id: str = "", identity: str = "alice", stdin: bytes = b""
    ) -> JobRecord:
        request_id = request_id or f"request {next(_numbers)}"
        return await self.jobs.create(identity, request_id, content_digest(content, stdin), content, stdin)

    async def run(self, content: JobContent, **options: Any) -> Watched:
        """Create a job and watch it to its end."""
        return await self.watch(await self.create(content, **options))

    async def watch(
        self, job: JobRecord, stdout_offset: int | None = 0, stderr_offset: int | None = 0
    ) -> Watched:
        """Watch a job to its end. Checks that nothing comes twice, or out of order."""
        return await asyncio.wait_for(self._watch(job, stdout_offset, stderr_offset), DEADLINE)

    async def _watch(self, job: JobRecord, stdout_offset: int | None, stderr_offset: int | None) -> Watched:
        watched = Watched(job)
        expected = {"stdout": stdout_offset, "stderr": stderr_offset}
        async for event in self.jobs.watch(job, stdout_offset, stderr_offset):
            if isinstance(event, JobRecord):
                watched.job = event
                watched.states.append(event.state)
                continue
            assert isinstance(event, Piece)
            position = expected[event.stream]
            assert position is not None, f"{event.stream} was not asked for"
            assert event.data
            assert event.offset >= position, "a byte came twice"
            if event.offset > position:
                watched.gaps.append((event.stream, position, event.offset))
            setattr(watched, event.stream, getattr(watched, event.stream) + event.data)
            expected[event.stream] = event.offset + len(event.data)
        assert watched.job.state.ended, "a watch ends with the job's end"
        return watched

    async def watch_until(self, job: JobRecord, wanted: bytes) -> JobRecord:
        """Watch until ``wanted`` was written to standard output; the job as it is then."""

        async def look() -> None:
            seen = b""
            async for event in self.jobs.watch(job, 0, None):
                if isinstance(event, Piece) and (seen := seen + event.data).startswith(wanted):
                    return

        await asyncio.wait_for(look(), DEADLINE)
        found = await self.jobs.get(job.id)
        assert found is not None
        return found

    async def ended(self, job: JobRecord) -> JobRecord:
        """The job, once it has ended."""
        return (await self.watch(job, None, None)).job
