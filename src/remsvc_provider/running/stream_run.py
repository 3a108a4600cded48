"""Runs a plan's commands over one stream of wire version 1, for servers without durable jobs."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from remsvc.client import AsyncClient
from remsvc.client.options import ConnectionOptions
from remsvc.client.results import CommandResult
from remsvc.errors import DeadlineExceededError, MissingResultsError, RemSvcError, ServerError
from remsvc.time_limit import TimeLimit
from remsvc_provider.log.job_output import shortened
from remsvc_provider.log.task_log import FLUSH_SECONDS, Log, TaskLog
from remsvc_provider.log.texts import command_report, failure_text, security_text, without_nul
from remsvc_provider.masking import Masking
from remsvc_provider.outcome import Outcome, Results, RunState
from remsvc_provider.plan import Plan, RunTimes
from remsvc_provider.running.channels import pooled_transport
from remsvc_provider.running.patience import ATTEMPTS, TRANSIENT, delay_after

GRACE = 1.0
"""Seconds beyond stream_timeout, for a call that does not keep to its own limit."""


async def run_over_stream(
    plan: Plan, times: RunTimes, options: ConnectionOptions, log: Log, masking: Masking
) -> Outcome:
    """Run all commands, one after another, and tell the task's log about each.

    A connection that cannot be made is tried again, as long as nothing was written. Cancelling this
    coroutine cancels the call, and the server then ends the command that runs.

    Args:
        plan: what to run.
        times: until when.
        options: how to reach the server.
        log: the task's logger.
        masking: of the secrets in all that is told.
    """
    task_log = TaskLog(log, masking)
    run = StreamRun(plan, options, task_log, masking)
    try:
        outcome = await run.outcome()
        if outcome.error is None:
            task_log.add(f"All {len(plan.commands)} command(s) succeeded in {run.seconds:.2f} s")
        else:
            task_log.add(outcome.error, "error")
    finally:
        await task_log.flush(times.log_seconds(FLUSH_SECONDS))
    return outcome


class StreamRun:
    """One run of a plan over a stream. A connection that breaks after something was sent ends it."""

    def __init__(self, plan: Plan, options: ConnectionOptions, task_log: TaskLog, masking: Masking) -> None:
        self._plan = plan
        self._commands = [command.of_version_1 for command in plan.commands]
        self._options = options
        self._stream_timeout = plan.stream_timeout
        self._task_log = task_log
        self._masking = masking
        self._results: Results = {}
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    async def outcome(self) -> Outcome:
        self._task_log.add(
            f"Running {len(self._commands)} command(s) on {self._options.target} "
            f"({security_text(self._options)}), within {self._stream_timeout:g} s"
        )
        try:
            # The call's own limit is a moment before this one: it knows whether anything was sent.
            with TimeLimit(self._stream_timeout + GRACE):
                await self._attempts()
        except (TimeoutError, DeadlineExceededError) as error:
            if isinstance(error, DeadlineExceededError) and not error.sent and not self._results:
                # A retry is harmless, unlike after commands that have begun.
                return self._end(
                    RunState.FAILED,
                    f"stream_timeout of {self._stream_timeout:g} s exceeded before the server took the call: "
                    f"nothing was sent",
                )
            return self._end(
                RunState.CANCELLED,
                f"stream_timeout of {self._stream_timeout:g} s exceeded, the call was cancelled: "
                f"{len(self._results)} of {len(self._commands)} command(s) had been answered",
            )
        except MissingResultsError as error:
            missing = ", ".join(f"command {tid} (commands[{tid - 1}])" for tid in error.tids)
            return self._end(RunState.FAILED, f"the server ended the stream without an answer to {missing}")
        except ServerError as error:
            problem = str(error)
            if isinstance(error, TRANSIENT) and not error.sent:
                problem += f"; nothing was sent in {ATTEMPTS} attempts"
            elif isinstance(error, TRANSIENT):
                problem += (
                    "; not retried to prevent duplicate execution: the server may have received commands "
                    f"({len(self._results)} of {len(self._commands)} had been answered)"
                )
            return self._end(RunState.FAILED, problem)
        except RemSvcError as error:
            return self._end(RunState.FAILED, str(error))
        if any(self._plan.failed(result["rc"]) for result in self._results.values()):
            return self._end(RunState.FAILED)
        return Outcome(RunState.SUCCESS, self._results)

    def _end(self, state: RunState, problem: str = "") -> Outcome:
        """An outcome that names the problem, and every command that failed."""
        problems = [problem] if problem else []
        results = self._results.values()
        problems += [failure_text(result) for result in results if self._plan.failed(result["rc"])]
        return Outcome(state, self._results, self._masking("; ".join(problems)))

    async def _attempts(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._stream()
            except TRANSIENT as error:
                if error.sent or attempt == ATTEMPTS:
                    raise
                delay = delay_after(attempt)
                following = f"attempt {attempt + 1} of {ATTEMPTS} follows in {delay:g} s"
                self._task_log.add(f"{error}; nothing was sent, {following}", "warning")
                await asyncio.sleep(delay)
            else:
                return

    async def _stream(self) -> None:
        with pooled_transport(self._options) as transport:
            client = AsyncClient.over(transport, self._options)
            remaining = max(self._stream_timeout - self.seconds, 0.0)
            previous = time.monotonic()
            answers = client.run_many(self._commands, timeout=remaining, metadata=self._plan.metadata)
            async with aclosing(answers):
                async for answer in answers:
                    now = time.monotonic()
                    self._take(answer, now - previous)
                    previous = now

    def _take(self, answer: CommandResult, seconds: float) -> None:
        cmd = self._masking(self._commands[answer.tid - 1].cmd)
        notes = []
        if answer.lossy:
            notes.append("the output had bytes that are not UTF-8; each came as U+FFFD")
        limit = self._plan.options.max_output_bytes
        out, err, note = without_nul(
            shortened(answer.out, limit, self._masking), shortened(answer.err, limit, self._masking)
        )
        if note:
            notes.append(note)
        self._results[answer.tid] = {
            "tid": answer.tid,
            "rc": answer.rc,
            "out": out,
            "err": err,
            "hsh": answer.hsh,
            "cmd": cmd,
        }
        report = command_report(answer.tid, cmd, answer.rc, out, err, seconds, notes=tuple(notes))
        self._task_log.add(report, "error" if self._plan.failed(answer.rc) else "info")
