"""The policy that decides now, and how much each identity takes of what it permits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from remsvc.errors import StartError
from remsvc.execution.jobs.gate import JobPermission
from remsvc.execution.jobs.model import JobRecord
from remsvc.execution.lookups import Lookups
from remsvc.server.bounds.rate_limit import RateLimiter
from remsvc.server.policy.decision import DEFAULT_RULE, NO_SHELL, CommandRequest, Decision
from remsvc.server.policy.places import CommandPlaces, JobsBeside, NoJobs, Place
from remsvc.server.policy.policy import Policy
from remsvc.server.refusal import exhausted
from remsvc.time_limit import TimeLimit

_DECISION_SECONDS = 10.0
_LONG = 64 * 1024  # characters: what takes longer to match than to hand to a thread


class PolicyInForce:
    """What both services of a server ask whether a command may run. A reload gives it another policy.

    It is also the :class:`~remsvc.execution.jobs.gate.JobGate` that the server's durable jobs ask.

    Args:
        policy: the one in force at first.
        knows: tells whether an identity exists now.
        lookups: the server's threads for lookups that may take long, such as in folders of programs.

    """

    def __init__(self, policy: Policy, knows: Callable[[str], bool], lookups: Lookups | None = None) -> None:
        self._policy = policy
        self._jobs: JobsBeside = NoJobs()
        self._places = CommandPlaces(lambda identity: self._policy.limits(identity).max_running)
        self._knows = knows
        self._rates = RateLimiter()
        self._lookups = lookups or Lookups()

    @property
    def policy(self) -> Policy:
        """The one in force now."""
        return self._policy

    def share_with(self, jobs: JobsBeside) -> None:
        """Bound these durable jobs as well: an identity's commands and jobs share its places."""
        self._jobs = jobs
        self._places.share_with(jobs)

    def use(self, policy: Policy) -> None:
        """Decide by another policy from now on; :meth:`note_limits` then starts what may run by it."""
        self._policy = policy

    def note_limits(self) -> None:
        """Start version-1 commands that wait, where the limits of the policy in force now permit it."""
        self._places.serve_all()

    def count_request(self, identity: str) -> None:
        """Count a command that is asked for, permitted or not.

        Raises:
            RefusedError: too many in too short a time.
        """
        if rate := self._policy.limits(identity).rate:
            wait = self._rates.take(identity, rate)
            if wait:
                seconds = math.ceil(wait * 1000) / 1000
                reason = f"more than {rate} commands: try again in {seconds:g} s (rule rate)"
                raise exhausted(reason, seconds, rule="rate")

    async def decide(self, identity: str, request: CommandRequest) -> Decision:
        """As :meth:`Policy.decide`, without blocking the event loop."""
        policy = self._policy
        waits = request.shell == NO_SHELL and policy.reads_folders(identity)
        if not waits and request.size < _LONG:
            return policy.decide(identity, request)
        try:
            with TimeLimit(_DECISION_SECONDS):
                return await self._lookups.run(identity, partial(policy.decide, identity, request))
        except TimeoutError:
            return Decision(False, DEFAULT_RULE, "it could not be decided in time whether this is permitted")

    def place(self, identity: str) -> Place:
        """The place of one call among the commands that an identity may run; it is not taken yet."""
        return Place(self._places, identity)

    def permission(self, policy: Policy, decision: Decision, fault: Callable[[], str]) -> JobPermission:
        """What ``policy`` has decided for a job, as long as that policy is in force.

        Args:
            fault: tells why the one who asked for the job may not have it run any more; empty where he may.
        """

        def stands() -> bool:
            if why := fault():
                raise StartError(f"not permitted any more: {why}")
            return policy is self.policy

        return JobPermission(stands, decision.program)

    # As a JobGate

    def running_limit(self, identity: str) -> int | None:
        """How many jobs of an identity may run beside its version-1 commands."""
        limit = self._policy.limits(identity).max_running
        return None if limit is None else limit - self._places.beside(identity)

    def queue_limit(self, identity: str) -> int | None:
        """How many jobs of an identity may wait."""
        return self._policy.limits(identity).max_queued

    def note_room(self, identity: str) -> None:
        """Take in that a job of an identity has ended: a version-1 command may have waited for that."""
        self._places.serve(identity)

    async def permit(self, job: JobRecord) -> JobPermission:
        """Decide again, by the policy in force now, on a job that was permitted when it was created.

        Raises:
            StartError: it is not permitted any more.
        """
        policy = self._policy
        request = CommandRequest.of_job(job.content, has_input=self._jobs.has_input(job.id))
        decision = await self.decide(job.identity, request)
        if not decision.allowed:
            raise StartError(f"not permitted any more: {decision.message}")
        return self.permission(policy, decision, partial(self._fault, job.identity))

    def _fault(self, identity: str) -> str:
        return "" if self._knows(identity) else f"there is no identity {identity} any more"
