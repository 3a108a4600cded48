"""Runs a plan's commands as durable jobs: each runs at most once, whoever asks for it and however often.

A triggerer that was started again needs nothing that the old one had in memory: it computes the
same request ids, and these lead to the same jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from remsvc.client.jobs import Job, JobState
from remsvc.client.options import ConnectionOptions
from remsvc.errors import RemSvcError, UnimplementedError
from remsvc.time_limit import TimeLimit
from remsvc_provider.log.job_output import JobOutput
from remsvc_provider.log.task_log import FLUSH_SECONDS, Log, TaskLog
from remsvc_provider.log.texts import one_line, security_text, shown_id
from remsvc_provider.masking import Masking
from remsvc_provider.origin import Origin
from remsvc_provider.outcome import Outcome, RunState
from remsvc_provider.plan import Plan, RunTimes
from remsvc_provider.running.access import Reread, ServerAccess
from remsvc_provider.running.job_follower import GRACE, JobFollower
from remsvc_provider.running.open_jobs import OpenJobs
from remsvc_provider.running.patience import ATTEMPTS, TRANSIENT, Patience
from remsvc_provider.running.plan_jobs import PlanJobs
from remsvc_provider.running.run_results import RunResults
from remsvc_provider.running.time_budget import TimeBudget, TimeIsUpError
from remsvc_provider.settings import LOG_DRAIN, MAX_LOG_BYTES

LOG_MARGIN = 2.0
"""So many seconds before ``execution_timeout`` ends the task, nobody waits any more for the log of a command
that has ended."""


class NoJobsError(RemSvcError):
    """The server knows no durable jobs. Nothing ran."""


class DurableRun:
    """One run of a plan by durable jobs. Needs a running event loop; :meth:`close` it.

    Args:
        plan: what to run.
        times: until when.
        origin: who asks.
        options: how to reach the server.
        reread: tells what the connection says now, for when its credentials are refused.
        log: the task's logger.
        masking: of the secrets in all that is told.
        alone: use a connection of its own: see :class:`~remsvc_provider.running.run.PlanRun`.

    Raises:
        AirflowException: an option in airflow.cfg cannot be used.
    """

    def __init__(
        self,
        plan: Plan,
        times: RunTimes,
        origin: Origin,
        options: ConnectionOptions,
        reread: Reread,
        log: Log,
        masking: Masking,
        *,
        alone: bool = False,
    ) -> None:
        self._plan = plan
        self._times = times
        self._options = options
        self._masking = masking
        self._task_log = TaskLog(log, masking)
        self._access = ServerAccess(options, reread, self._warn, alone=alone)
        self._resumed = plan.may_have_begun
        self._patience = Patience(self._access, self._warn, forever=self._resumed)
        self._begun = 0
        self._budget = TimeBudget(plan.stream_timeout, origin.request_id, GRACE)
        self._jobs = PlanJobs(plan, origin, self._patience, self._budget)
        self._open_jobs = OpenJobs(plan, origin, self._access, self._jobs, self._task_log)
        self._results = RunResults(plan, masking, self._task_log)
        self._limit: TimeLimit | None = None
        self._ended = 0  # commands that are known to have ended
        self._last_end = float("-inf")  # of them, on the monotonic clock
        max_log_bytes, log_drain = plan.options.max_log_bytes, plan.options.log_drain
        self._max_log_bytes = MAX_LOG_BYTES.read() if max_log_bytes is None else max_log_bytes
        self._log_drain = LOG_DRAIN.read() if log_drain is None else log_drain

    async def outcome(self, limit: TimeLimit | None = None) -> Outcome:
        """Run all commands, and say how that ended. When this call is cancelled, the jobs go on:
        :meth:`cancel` ends them.

        Args:
            limit: the time limit around this call. It is lifted as soon as all commands are known to have
                ended: then only the end of their output or of the log is missing, and a task whose commands
                have kept their time must not fail for that.

        Raises:
            NoJobsError: nothing ran.
        """
        self._limit = limit
        count = len(self._plan.commands)
        try:
            # Getting through to the server does not count as running. Else a crowd, all of whom wait for
            # a free call, would lose the time of their commands, and these could not be tried again.
            with TimeLimit(self._plan.stream_timeout):
                await self._begin()
            with self._budget.limit:
                await self._run()
        except (TimeoutError, TimeIsUpError):
            outcome = await self._too_late()
        except NoJobsError:
            raise
        except RemSvcError as error:
            problem = str(error)
            if isinstance(error, TRANSIENT) and not error.sent:
                problem += f"; nothing was sent in {ATTEMPTS} attempts"
            outcome = self._end(RunState.FAILED, problem)
        else:
            outcome = self._end(RunState.FAILED if self._results.failed else RunState.SUCCESS)
        if outcome.error is None:
            self._task_log.add(f"All {count} command(s) succeeded in {self._budget.passed:.2f} s")
        else:
            self._task_log.add(outcome.error, "error")
        if limit is not None:
            limit.restart(None)
        await self._flush(self._drain_seconds(time.monotonic() - self._last_end))
        return outcome

    async def _too_late(self) -> Outcome:
        limit = f"stream_timeout of {self._plan.stream_timeout:g} s exceeded"
        done = "nothing was running"
        if self._jobs.under_way or self._open_jobs.any or self._resumed:
            done = await self.cancel(limit)
        if not self._open_jobs.any and not self._resumed and (why := self._jobs.why_none()):
            # A retry is harmless, unlike after commands that have begun.
            return self._end(RunState.FAILED, f"{limit}, and nothing ran: {why}")
        ended = f"{self._results.count} of {len(self._plan.commands)} command(s) had ended"
        return self._end(RunState.CANCELLED, f"{limit}, {done}: {ended}")

    async def cancel(self, reason: str) -> str:
        """End the jobs that are not known to have ended. To be called when :meth:`outcome` has returned or
        was cancelled.

        Returns:
            What became of them, for a person.
        """
        self._patience.stop()
        fate = await self._open_jobs.cancel(reason)
        await self._flush()
        return fate

    async def close(self) -> None:
        """Release what is held here. The jobs go on."""
        await self._jobs.close()
        await self._access.close()
        await self._flush()

    async def _flush(self, seconds: float = 0.0) -> None:
        await self._task_log.flush(self._times.log_seconds(max(FLUSH_SECONDS, seconds)))

    def _warn(self, text: str) -> None:
        self._task_log.add(text, "warning")

    def _end(self, state: RunState, problem: str = "") -> Outcome:
        return self._results.outcome(state, problem, not_started=len(self._plan.commands) - self._begun)

    async def _begin(self) -> None:
        """Make sure that the server can be reached, and find the jobs that it has of this task already."""
        await self._patience.insist(lambda client: client.connect(metadata=self._plan.metadata))
        try:
            await self._jobs.look()
        except UnimplementedError as error:
            raise NoJobsError(str(error)) from error
        count = len(self._plan.commands)
        self._task_log.add(
            f"Running {count} command(s) on {self._options.target} ({security_text(self._options)}), "
            f"within {self._plan.stream_timeout:g} s, as durable jobs"
        )
        await self._jobs.adopt(self._task_log)

    async def _run(self) -> None:
        count = len(self._plan.commands)
        tids = iter(range(1, count + 1))
        if self._plan.options.parallel == 1:
            await self._work(tids)
            return
        working = [
            asyncio.create_task(self._work(tids)) for _ in range(min(self._plan.options.parallel, count))
        ]
        try:
            done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
        for task in done:
            task.result()

    async def _work(self, tids: Iterator[int]) -> None:
        """Run one command after another, until none is left or one could not be followed to its end."""
        for tid in tids:
            if self._results.has_problems:
                return
            self._begun += 1
            try:
                await self._command(tid)
            except TimeIsUpError:
                raise
            except RemSvcError as error:
                where = f"command {tid} (commands[{tid - 1}])"
                if (job_id := self._open_jobs.id_of(tid)) is not None:
                    where += f", whose job {shown_id(job_id)} may go on,"
                self._results.add_problem(f"{where} failed: {error}")

    async def _command(self, tid: int) -> None:
        folds = self._plan.options.parallel == 1  # groups cannot overlap, as what runs side by side does
        title = f"Command {tid}: {one_line(self._text(tid))}"
        if folds:
            self._task_log.begin_group(title)
        try:
            job, beginning = await self._jobs.obtain(tid)
            self._task_log.add(beginning if folds else f"{title}\n{beginning}")
            job, output = await self._follow(tid, job)
        finally:
            if folds:
                self._task_log.end_group()
        if job.state is JobState.TIMED_OUT:
            self._task_log.add(f"Command {tid} was ended by its time limit", "error")
            raise TimeIsUpError("stream_timeout")
        self._results.take(tid, job, output)

    async def _follow(self, tid: int, job: Job) -> tuple[Job, JobOutput]:
        """Follow a job to its end. Returns the job as it ended, and its output."""
        self._open_jobs.add(tid, job)
        output = JobOutput(
            job, self._task_log, tid, self._plan.options.max_output_bytes, self._max_log_bytes, self._masking
        )
        ended = None
        try:
            with self._budget.following() as stop_counting:

                def note_end() -> None:
                    stop_counting()
                    self._note_end()

                follower = JobFollower(
                    self._access, self._plan, self._times, self._drain_seconds, self._task_log, note_end
                )
                job = ended = await follower.to_its_end(job, output)
        finally:
            output.finish(ended)
        self._open_jobs.ended(tid, job)
        self._budget.note(job)
        return job, output

    def _note_end(self) -> None:
        """Take notice that a command has ended. After the last one ``execution_timeout`` does not count any
        more: it has been kept."""
        self._ended += 1
        self._last_end = time.monotonic()
        if self._limit is not None and self._ended == len(self._plan.commands):
            self._limit.restart(None)

    def _drain_seconds(self, passed: float = 0.0) -> float:
        """For how long a command that ended ``passed`` seconds ago still waits until its log is written."""
        left = self._log_drain - passed
        if self._times.time_is_up is not None:
            left = min(left, self._times.time_is_up - LOG_MARGIN - time.monotonic())
        return max(left, 0.0)

    def _text(self, tid: int) -> str:
        """A command's text as people see it: without secrets."""
        return self._plan.commands[tid - 1].text(self._masking)
