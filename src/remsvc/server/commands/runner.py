"""Runs a version-1 command on the engine: its text becomes a process, and the process's end an answer."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakSet

from remsvc.command import Command, CommandType
from remsvc.errors import StartError
from remsvc.execution.engine import Engine, Output, Process, ProcessEnd, ProcessSpec
from remsvc.execution.jobs.model import JobContent
from remsvc.execution.jobs.transient import PassingJob, PassingJobs
from remsvc.execution.login import login
from remsvc.execution.lookups import Lookups
from remsvc.execution.shell import shell_argv
from remsvc.execution.supervisor.protocol import MARK
from remsvc.server.policy.decision import IdentityLimits

_TIMED_OUT = "process timed out"
_NOT_ENDED = "the process could not be ended"


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """What became of a command: ``rc``, ``out`` and ``err`` as they go on the wire."""

    rc: int
    out: str = ""
    err: str = ""


@dataclass(eq=False)
class RunnableCommand:
    """A command that is ready for the engine, or was given to it already.

    It is made with all that is known of it; the process comes once it is started.

    Attributes:
        command: what the caller has asked for.
        job: describes the command in lists of jobs, with the limits that it must keep to.
        spec: the process that is to run, or why it could not be prepared.
        process: the process, once the engine has it. It may still wait for the command before it.
    """

    command: Command
    job: JobContent
    spec: ProcessSpec | StartError
    process: Process | None = field(default=None, init=False)

    def start(self, engine: Engine, spec: ProcessSpec, after: Process | None) -> Process:
        """Give it to the engine, to start at once or the moment another process has ended."""
        process = self.process = engine.start(spec, after)
        return process

    @property
    def withdrawn(self) -> bool:
        """Whether it was taken back while it waited for the one before it: then it never started."""
        return self.process is not None and self.process.withdrawn


class CommandRunner:
    """Runs commands on an engine.

    Args:
        passing: where they are listed while they run.
        time_limit: seconds for each command.
        output_limit: bytes of UTF-8 text kept of each output.
        lookups: the server's, by which users are looked up.

    Attributes:
        started: how many commands were started. One that waits for another one counts when its turn comes.
    """

    def __init__(
        self,
        engine: Engine,
        passing: PassingJobs,
        *,
        time_limit: float,
        output_limit: int,
        lookups: Lookups | None = None,
    ) -> None:
        self._engine = engine
        self._passing = passing
        self._time_limit = time_limit
        self._output_limit = output_limit
        self._own_login = login()
        self._lookups = lookups or Lookups()
        # Weak: a withdrawn process has no other reference, and disappears from here by itself.
        self._waiting: WeakSet[Process] = WeakSet()
        self.started = 0
        self._mark, self._marks = secrets.token_hex(8), itertools.count(1)

    @property
    def can_start_after(self) -> bool:
        """Whether a command can wait for another one, ready to start."""
        return self._engine.can_start_after

    def new_id(self) -> str:
        """The id under which one more command will be listed."""
        return self._passing.new_id()

    def as_job(self, command: Command) -> JobContent:
        """A command as it is listed."""
        return JobContent(
            shell_command=command.cmd,
            powershell=command.cmdtyp == CommandType.POWERSHELL,
            user=command.cmdusr,
            time_limit=self._time_limit,
            output_limit=self._output_limit,
            source=command.src,
        )

    async def prepare(self, command: Command, limits: IdentityLimits, identity: str) -> RunnableCommand:
        """Get a valid command ready to start.

        Args:
            limits: of its caller, beside those for every command.
            identity: its caller.
        """
        job = limits.of_job(self.as_job(command))
        try:
            return RunnableCommand(command, job, await self._spec(command, job, identity))
        except StartError as error:
            return RunnableCommand(command, job, error)

    def start(self, prepared: RunnableCommand, after: RunnableCommand | None = None) -> None:
        """Start it. Whoever does awaits :meth:`answer` or calls :meth:`abandon`.

        Args:
            after: start it the moment this one has ended; see :attr:`can_start_after`.
        """
        if isinstance(spec := prepared.spec, StartError):
            return
        if after is None or after.process is None:
            self.started += 1
            prepared.start(self._engine, spec, None)
        else:
            self._waiting.add(prepared.start(self._engine, spec, after.process))

    def withdraw_waiting(self) -> None:
        """Take back all commands that wait for another one to end: they have to be permitted anew."""
        for process in list(self._waiting):
            process.withdraw()

    async def answer(self, started: RunnableCommand, identity: str, job_id: str) -> CommandAnswer:
        """Wait for the end of a command, whose turn it is. Cancelled, end its whole process tree.

        Args:
            job_id: of :meth:`new_id`.

        Raises:
            ExecutionError: whether the command ran is not known.
        """
        with self._passing.running(job_id, identity, started.job) as passing:
            try:
                outcome = await self._outcome(started, passing)
            except StartError as error:
                passing.end(1, reason=str(error))
                return CommandAnswer(1, err=str(error))
            answer = _answer(outcome, started.job.output_limit)
            passing.end(answer.rc, outcome.timed_out, outcome.stdout.total, outcome.stderr.total)
            return answer

    def abandon(self, started: RunnableCommand, identity: str, job_id: str) -> None:
        """End a command whose turn has not come, should it have started."""
        if started.process is not None and not started.withdrawn:
            with self._passing.running(job_id, identity, started.job):
                self._waiting.discard(started.process)
                started.process.end()

    async def _outcome(self, started: RunnableCommand, passing: PassingJob) -> ProcessEnd:
        if isinstance(spec := started.spec, StartError):
            raise spec
        process = started.process
        assert process is not None
        if process in self._waiting:
            self._waiting.discard(process)
            self.started += 1  # not before: it could have been taken back
        passing.note_process(process)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            process.end()
            raise
        except StartError as error:
            who = f"cannot run as user {started.command.cmdusr}: " if spec.credentials else ""
            raise StartError(f"{who}{error}") from error

    async def _spec(self, command: Command, job: JobContent, identity: str) -> ProcessSpec:
        surroundings = self._own_login
        if command.cmdusr:
            find = partial(login, command.cmdusr)
            surroundings = await self._lookups.for_start(identity, f"user {command.cmdusr}", find)
        return ProcessSpec(
            argv=shell_argv(command.cmd, command.cmdtyp, surroundings.env.get("PATH", "")),
            env={**surroundings.variables(), MARK: f"{self._mark}-{next(self._marks)}"},
            cwd=surroundings.cwd,
            credentials=surroundings.credentials,
            time_limit=job.time_limit,
            # A character that straddles the limit has to be seen whole to be left out whole.
            output_limit=job.output_limit + 4,
            caller=identity,
        )


def _answer(outcome: ProcessEnd, output_limit: int) -> CommandAnswer:
    out = _text(outcome.stdout, output_limit)
    if outcome.timed_out:
        return CommandAnswer(1, out, _TIMED_OUT)
    rc = outcome.exit_code if outcome.signal is None else 128 + outcome.signal
    if rc is None:  # it was told to end, and even SIGKILL did not reach it
        return CommandAnswer(1, out, _NOT_ENDED)
    return CommandAnswer(rc, out, _text(outcome.stderr, output_limit))


def _text(output: Output, limit: int) -> str:
    try:
        encoded, text = output.head, output.head.decode()
    except UnicodeDecodeError:
        text = output.head.decode(errors="replace")
        encoded = text.encode()
    if output.total <= limit and len(encoded) <= limit:
        return text
    kept = encoded[:limit].decode(errors="ignore")
    return f"{kept}\n\x01[remSvc: output truncated at {limit} bytes]\x01\n"
