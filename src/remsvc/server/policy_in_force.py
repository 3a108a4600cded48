"""The policy that the services ask, and how much each identity is using of what it may."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from remsvc.execution.job import Job
from remsvc.server.decision import NO_SHELL, CommandRequest, Decision
from remsvc.server.policy import DEFAULT_RULE, Policy
from remsvc.server.rate_limit import RateLimiter
from remsvc.server.refusal import exhausted
from remsvc.time_limit import TimeLimit

_DECISION_SECONDS = 10.0
_LONG = 64 * 1024  # characters: what takes longer to match than to hand to a thread
_RETRY_SECONDS = 1.0


class PolicyInForce:
    """One for a server. It is the :class:`~remsvc.execution.job_gate.JobGate` of its jobs, too.

    Attributes:
        policy: the one in force now; a reload replaces it.
        jobs_running: how many durable jobs of an identity run now.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.jobs_running: Callable[[str], int] = lambda _: 0
        self._rates = RateLimiter()
        self._commands: Counter[str] = Counter()

    def count_request(self, identity: str) -> None:
        """Count a command that is asked for, permitted or not.

        Raises:
            RefusedError: too many in too short a time.
        """
        if rate := self.policy.limits(identity).rate:
            wait = self._rates.take(identity, rate)
            if wait:
                seconds = math.ceil(wait * 1000) / 1000
                reason = f"more than {rate} commands: try again in {seconds:g} s (rule rate)"
                raise exhausted(reason, seconds, rule="rate")

    async def decide(self, identity: str, request: CommandRequest) -> Decision:
        """As :meth:`Policy.decide`, without blocking the event loop."""
        policy = self.policy
        waits = request.shell == NO_SHELL and policy.reads_folders(identity)
        if not waits and request.size < _LONG:
            return policy.decide(identity, request)
        try:
            with TimeLimit(_DECISION_SECONDS):
                return await asyncio.to_thread(policy.decide, identity, request)
        except TimeoutError:
            return Decision(False, DEFAULT_RULE, "it could not be decided in time whether this is permitted")

    @contextmanager
    def running_command(self, identity: str) -> Iterator[None]:
        """A version-1 command counts as running in the block.

        Raises:
            RefusedError: as many run as may.
        """
        limit = self.policy.limits(identity).max_running
        if limit is not None and self._commands[identity] + self.jobs_running(identity) >= limit:
            reason = f"{limit} commands are running already (rule max_running)"
            raise exhausted(reason, _RETRY_SECONDS, rule="max_running")
        self._commands[identity] += 1
        try:
            yield
        finally:
            self._commands[identity] -= 1
            if not self._commands[identity]:
                del self._commands[identity]

    # As a JobGate

    def running_limit(self, identity: str) -> int | None:
        """How many jobs of an identity may run beside its version-1 commands."""
        limit = self.policy.limits(identity).max_running
        return None if limit is None else limit - self._commands.get(identity, 0)

    def queue_limit(self, identity: str) -> int | None:
        """How many jobs of an identity may wait."""
        return self.policy.limits(identity).max_queued

    async def refusal(self, job: Job) -> str:
        """Why a job must not start, though it was permitted when it was created."""
        decision = await self.decide(job.identity, CommandRequest.of_job(job.spec))
        return "" if decision.allowed else f"not permitted any more: {decision.message}"
