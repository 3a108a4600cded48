"""Runs a plan, by durable jobs where the server has them, else over a stream of version 1.

Importing this module loads the client and its transport, which takes long: no DAG file does it.
"""

from __future__ import annotations

from remsvc.client.options import ConnectionOptions
from remsvc.time_limit import TimeLimit
from remsvc_provider.log.task_log import Log
from remsvc_provider.masking import Masking
from remsvc_provider.outcome import Outcome, RunState
from remsvc_provider.plan import Plan, RunTimes
from remsvc_provider.running.access import Reread
from remsvc_provider.running.durable_run import DurableRun, NoJobsError
from remsvc_provider.running.stream_run import run_over_stream


class PlanRun:
    """One run of a plan, in the running event loop: what the trigger and the worker share. :meth:`close` it.

    Args:
        plan: what to run.
        times: until when.
        options: how to reach the server.
        reread: tells what the connection says now, for when its credentials are refused.
        log: the task's log.
        masking: of the secrets in all that is told.
        alone: use a connection of its own for jobs, which stays open until :meth:`close`. The shared one
            is closed when its event loop is told to end, and then no job could be cancelled any more.

    Raises:
        AirflowException: an option in airflow.cfg cannot be used.
    """

    def __init__(
        self,
        plan: Plan,
        times: RunTimes,
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
        self._log = log
        self._masking = masking
        self._durable: DurableRun | None = None
        if plan.origin is not None:
            self._durable = DurableRun(plan, times, plan.origin, options, reread, log, masking, alone=alone)

    async def outcome(self, limit: TimeLimit | None = None) -> Outcome:
        """Run all commands, and say how that ended. When this call is cancelled, jobs go on, and
        :meth:`cancel` ends them; the command of a stream is ended by the server.

        Args:
            limit: the time limit around this call; lifted when only the end of the log is missing.
        """
        if self._durable is not None:
            try:
                return await self._durable.outcome(limit)
            except NoJobsError:
                await self.close()
        if needs := self._plan.needs_jobs:
            error = f"{self._options.target} has no durable jobs, which {', '.join(needs)} needs: nothing ran"
            self._log.error(error)
            return Outcome(RunState.FAILED, {}, error)
        return await run_over_stream(self._plan, self._times, self._options, self._log, self._masking)

    async def cancel(self, reason: str) -> str:
        """End the jobs that still run, after :meth:`outcome` was cancelled, or in its place.

        Returns:
            What became of the commands, for a person.
        """
        return "the call was cancelled" if self._durable is None else await self._durable.cancel(reason)

    async def close(self) -> None:
        """Release what is held here. Jobs go on."""
        jobs, self._durable = self._durable, None
        if jobs is not None:
            await jobs.close()
