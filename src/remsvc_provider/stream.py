"""Run commands over one ``RemCmdStrm`` stream: what the trigger and the worker share.

Importing this module loads gRPC; a DAG file never does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from remsvc.client import AsyncClient
from remsvc.client.options import ConnectionOptions
from remsvc.client.results import CommandResult
from remsvc.command import Command
from remsvc.errors import (
    DeadlineExceededError,
    MissingResultsError,
    RemSvcError,
    ResourceExhaustedError,
    ServerError,
    UnavailableError,
)
from remsvc_provider.channels import pooled_channel
from remsvc_provider.commands import to_command
from remsvc_provider.outcome import JobState, Outcome, Results
from remsvc_provider.task_log import command_report, tail

ATTEMPTS = 3
FIRST_DELAY = 1.0
MAX_DELAY = 16.0
TRANSIENT = (UnavailableError, ResourceExhaustedError)


class Log(Protocol):
    """The part of a task's logger that is used here."""

    def info(self, event: str, /) -> Any: ...
    def warning(self, event: str, /) -> Any: ...
    def error(self, event: str, /) -> Any: ...


async def run_commands(
    commands: Sequence[Mapping[str, Any]],
    options: ConnectionOptions,
    *,
    stream_timeout: float,
    metadata: Sequence[tuple[str, str]],
    log: Log,
) -> Outcome:
    """Run all commands, one after another, and tell the task's log about each.

    A connection that cannot be made is tried again, as long as nothing was written. Cancelling this
    coroutine cancels the call, and the server then ends the command that runs.

    Args:
        commands: the operator's command dicts.
        options: where to.
        stream_timeout: seconds for all of it.
        metadata: call metadata beside the connection's token.
        log: where the story goes.
    """
    run = _Run([to_command(command) for command in commands], options, stream_timeout, metadata, log)
    outcome = await run.outcome()
    if outcome.error is None:
        log.info(f"All {len(commands)} command(s) succeeded in {run.seconds:.2f} s")
    else:
        log.error(outcome.error)
    return outcome


class _Run:
    def __init__(
        self,
        commands: list[Command],
        options: ConnectionOptions,
        stream_timeout: float,
        metadata: Sequence[tuple[str, str]],
        log: Log,
    ) -> None:
        self._commands = commands
        self._options = options
        self._stream_timeout = stream_timeout
        self._metadata = metadata
        self._log = log
        self._results: Results = {}
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    async def outcome(self) -> Outcome:
        self._log.info(
            f"Running {len(self._commands)} command(s) on {self._options.target} "
            f"({_security(self._options)}), within {self._stream_timeout:g} s"
        )
        try:
            await asyncio.wait_for(self._attempts(), self._stream_timeout)
        except (asyncio.TimeoutError, DeadlineExceededError):
            return self._end(
                JobState.CANCELLED,
                f"stream_timeout of {self._stream_timeout:g} s exceeded, the call was cancelled: "
                f"{len(self._results)} of {len(self._commands)} command(s) had been answered",
            )
        except MissingResultsError as error:
            missing = ", ".join(f"command {tid} (commands[{tid - 1}])" for tid in error.tids)
            return self._end(JobState.FAILED, f"the server ended the stream without an answer to {missing}")
        except ServerError as error:
            problem = str(error)
            if isinstance(error, TRANSIENT) and not error.sent:
                problem += f"; nothing was sent in {ATTEMPTS} attempts"
            elif isinstance(error, TRANSIENT):
                problem += (
                    "; not retried to prevent duplicate execution: the server may have received commands "
                    f"({len(self._results)} of {len(self._commands)} had been answered)"
                )
            return self._end(JobState.FAILED, problem)
        except RemSvcError as error:
            return self._end(JobState.FAILED, str(error))
        if any(result["rc"] for result in self._results.values()):
            return self._end(JobState.FAILED)
        return Outcome(JobState.SUCCESS, self._results)

    def _end(self, state: JobState, problem: str = "") -> Outcome:
        """An outcome that names the problem, and every command that failed."""
        problems = [problem] if problem else []
        problems += [_failure(result) for result in self._results.values() if result["rc"]]
        return Outcome(state, self._results, "; ".join(problems))

    async def _attempts(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._stream()
            except TRANSIENT as error:
                if error.sent or attempt == ATTEMPTS:
                    raise
                delay = min(FIRST_DELAY * 2 ** (attempt - 1), MAX_DELAY)
                self._log.warning(
                    f"{error}; nothing was sent, attempt {attempt + 1} of {ATTEMPTS} follows in {delay:g} s"
                )
                await asyncio.sleep(delay)
            else:
                return

    async def _stream(self) -> None:
        client = AsyncClient.over(pooled_channel(self._options), self._options)
        remaining = max(self._stream_timeout - self.seconds, 0.0)
        previous = time.monotonic()
        answers = client.run_many(self._commands, timeout=remaining, metadata=self._metadata)
        async with aclosing(answers):
            async for answer in answers:
                now = time.monotonic()
                self._take(answer, now - previous)
                previous = now

    def _take(self, answer: CommandResult, seconds: float) -> None:
        cmd = self._commands[answer.tid - 1].cmd
        notes = []
        if answer.lossy:
            notes.append("the output had bytes that are not UTF-8; each came as U+FFFD")
        out, err = answer.out, answer.err
        if "\0" in out or "\0" in err:
            # Airflow keeps events and XComs as PostgreSQL's JSONB, which cannot hold a NUL.
            notes.append("the output had NUL characters, which Airflow cannot store; each became U+FFFD")
            out, err = out.replace("\0", "\ufffd"), err.replace("\0", "\ufffd")
        self._results[answer.tid] = {
            "tid": answer.tid,
            "rc": answer.rc,
            "out": out,
            "err": err,
            "hsh": answer.hsh,
            "cmd": cmd,
        }
        report = command_report(answer.tid, cmd, answer.rc, out, err, seconds, notes=tuple(notes))
        if answer.rc:
            self._log.error(report)
        else:
            self._log.info(report)


def _security(options: ConnectionOptions) -> str:
    transport = "plaintext, no TLS"
    if options.tls:
        transport = "mutual TLS" if options.client_cert else "TLS"
    return f"{transport}, {'bearer token' if options.token else 'no token'}"


def _failure(result: Mapping[str, Any]) -> str:
    tid = result["tid"]
    text = f"command {tid} (commands[{tid - 1}]) ended with rc {result['rc']}"
    last = tail(result["err"], lines=3, characters=300)
    return f"{text}: {' / '.join(last)}" if last else text
