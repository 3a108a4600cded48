"""One version-1 command, from its text to its answer."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from remsvc.command import Command, CommandType
from remsvc.errors import StartError
from remsvc.execution.engine import MARK, Engine, Outcome, Output, ProcessSpec
from remsvc.execution.job import JobSpec
from remsvc.execution.login import login
from remsvc.execution.passing_jobs import PassingJob, PassingJobs
from remsvc.execution.shell import shell_argv
from remsvc.server.decision import IdentityLimits

_LOOKUP_SECONDS = 10.0
_TIMED_OUT = "process timed out"


@dataclass(frozen=True, slots=True)
class Answer:
    """``rc``, ``out`` and ``err`` as they go on the wire."""

    rc: int
    out: str = ""
    err: str = ""


class CommandRunner:
    """Runs commands on an engine.

    Args:
        passing: where they are listed while they run.
        time_limit: seconds for each command.
        output_limit: bytes of UTF-8 text kept of each output.
    """

    def __init__(self, engine: Engine, passing: PassingJobs, *, time_limit: float, output_limit: int) -> None:
        self._engine = engine
        self._passing = passing
        self._time_limit = time_limit
        self._output_limit = output_limit
        self._own_login = login()
        self.started = 0
        self._mark = secrets.token_hex(8)

    def new_id(self) -> str:
        """The id under which one more command will be listed."""
        return self._passing.new_id()

    def as_job(self, command: Command) -> JobSpec:
        """A command as it is listed."""
        return JobSpec(
            shell_command=command.cmd,
            powershell=command.cmdtyp == CommandType.POWERSHELL,
            user=command.cmdusr,
            time_limit=self._time_limit,
            output_limit=self._output_limit,
            source=command.src,
        )

    async def run(self, command: Command, identity: str, job_id: str, limits: IdentityLimits) -> Answer:
        """Run a valid, permitted command. Cancelled, it ends the command's whole process tree.

        Args:
            job_id: of :meth:`new_id`.
            limits: of its caller, beside those for every command.

        Raises:
            ExecutionError: whether the command ran is not known.
        """
        job = limits.of_job(self.as_job(command))
        with self._passing.running(job_id, identity, job) as passing:
            try:
                outcome = await self._outcome(command, passing)
            except StartError as error:
                passing.end(1, reason=str(error))
                return Answer(1, err=str(error))
            answer = _answer(outcome, job.output_limit)
            passing.end(answer.rc, outcome.timed_out, outcome.stdout.total, outcome.stderr.total)
            return answer

    async def _outcome(self, command: Command, passing: PassingJob) -> Outcome:
        spec = await self._spec(command, passing.job.spec)
        self.started += 1
        process = passing.process = self._engine.start(spec)
        if passing.cancel_reason:
            process.end()
        try:
            return await process.wait()
        except asyncio.CancelledError:
            process.end()
            raise
        except StartError as error:
            who = f"cannot run as user {command.cmdusr}: " if spec.credentials else ""
            raise StartError(f"{who}{error}") from error

    async def _spec(self, command: Command, job: JobSpec) -> ProcessSpec:
        surroundings = self._own_login
        if command.cmdusr:
            try:
                lookup = asyncio.to_thread(login, command.cmdusr)
                surroundings = await asyncio.wait_for(lookup, _LOOKUP_SECONDS)
            except asyncio.TimeoutError:
                raise StartError(f"user {command.cmdusr} could not be looked up in time") from None
        return ProcessSpec(
            argv=shell_argv(command.cmd, command.cmdtyp, surroundings.env.get("PATH", "")),
            env={**surroundings.env, MARK: f"{self._mark}-{self.started}"},
            cwd=surroundings.cwd,
            credentials=surroundings.credentials,
            time_limit=job.time_limit,
            # A character that straddles the limit has to be seen whole to be left out whole.
            output_limit=job.output_limit + 4,
        )


def _answer(outcome: Outcome, output_limit: int) -> Answer:
    out = _text(outcome.stdout, output_limit)
    if outcome.timed_out:
        return Answer(1, out, _TIMED_OUT)
    rc = outcome.exit_code if outcome.signal is None else 128 + outcome.signal
    assert rc is not None
    return Answer(rc, out, _text(outcome.stderr, output_limit))


def _text(output: Output, limit: int) -> str:
    text = output.head.decode(errors="replace")
    encoded = text.encode()
    if output.total <= limit and len(encoded) <= limit:
        return text
    kept = encoded[:limit].decode(errors="ignore")
    return f"{kept}\n\x01[remSvc: output truncated at {limit} bytes]\x01\n"
