"""What a task wants to have run, and how: one plan for the operator, for its trigger and for the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remsvc_provider.commands import TaskCommand
    from remsvc_provider.metadata import CallMetadata
    from remsvc_provider.origin import Origin

OUTCOME_MARGIN = 1.0
"""Seconds before Airflow ends a task, in which an outcome still reaches it."""
LEAST_LOG_SECONDS = 0.2
"""Enough for a few lines, if nothing is in their way."""
RESUMED_AFTER = 15.0
"""Seconds after a task was deferred. A run that begins later may have begun before, in another triggerer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run commands: what of a task's parameters has no templates.

    Attributes:
        max_output_bytes: bytes of each output that go into a result.
        skip_on_exit_code: exit codes that do not count as failures: they skip the task.
        parallel: how many commands run side by side.
        durable: take over what an earlier try has left running or has got done.
        on_kill: ``cancel`` the jobs when the task is killed, or ``leave`` them.
        max_log_bytes: bytes of each output that go into the task's log; None: as airflow.cfg says.
        log_drain: seconds for which an ended command waits for its log; None: as airflow.cfg says.
    """

    max_output_bytes: int = 262_144
    skip_on_exit_code: Sequence[int] = field(default_factory=list)
    parallel: int = 1
    durable: bool = False
    on_kill: str = "cancel"
    max_log_bytes: int | None = None
    log_drain: float | None = None

    def by_name(self) -> dict[str, Any]:
        """All of them by their names."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    def changed(self) -> dict[str, Any]:
        """By their names, those that have not their default."""
        return {
            name: value for name, value in asdict(self).items() if value != getattr(DEFAULT_OPTIONS, name)
        }


DEFAULT_OPTIONS = RunOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A task's commands, checked, and how to run them. A trigger's arguments say the same.

    Attributes:
        commands: the operator's commands, each with the ``env`` and ``cwd`` of all.
        stream_timeout: seconds for all of them together.
        metadata: call metadata beside the connection's token.
        secrets: what of commands and metadata no log may show.
        origin: the try of the task that asks; without it, no durable jobs are used.
        execution_timeout: seconds that Airflow gives the task; None: no limit.
        deferred_at: when a worker or the scheduler has deferred the task, in seconds since the epoch: from
            then on ``execution_timeout`` counts. None where that is not known, or nothing was deferred.
        options: how to run the commands.
    """

    commands: Sequence[TaskCommand]
    stream_timeout: float
    metadata: CallMetadata = field(default_factory=list, repr=False)
    secrets: Sequence[str] = field(default_factory=list, repr=False)
    origin: Origin | None = None
    execution_timeout: float | None = None
    deferred_at: float | None = None
    options: RunOptions = DEFAULT_OPTIONS

    def failed(self, rc: int) -> bool:
        """Whether an exit code counts as a failure."""
        return rc != 0 and rc not in self.options.skip_on_exit_code

    @property
    def execution_time_left(self) -> float | None:
        """Seconds of ``execution_timeout``, below 0 where it has passed; None where there is no limit."""
        if self.execution_timeout is None:
            return None
        passed = 0.0 if self.deferred_at is None else time.time() - self.deferred_at
        return self.execution_timeout - passed

    @property
    def may_have_begun(self) -> bool:
        """Whether the server may have jobs of this plan already, from a run that was cut off."""
        return self.deferred_at is not None and time.time() - self.deferred_at > RESUMED_AFTER

    @property
    def needs_jobs(self) -> list[str]:
        """What of it only a server with durable jobs can do, for a person."""
        needs = [
            f"commands[{index}] {key}"
            for index, command in enumerate(self.commands)
            for key in command.job_keys
        ]
        if self.options.parallel > 1:
            needs.append(f"parallel={self.options.parallel}")
        if self.options.durable:
            needs.append("durable=True")
        if self.options.on_kill != "cancel":
            needs.append(f"on_kill={self.options.on_kill!r}")
        return needs


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Until when a run has time, on the monotonic clock of the process that it runs in.

    Attributes:
        time_is_up: when ``execution_timeout`` ends the task; None: never.
        outcome_by: when the outcome must be there, because Airflow ends the task then; None: never.
    """

    time_is_up: float | None = None
    outcome_by: float | None = None

    @classmethod
    def of(cls, plan: Plan, deferred_until: float | None) -> RunTimes:
        """The times of a run that begins now.

        Args:
            plan: the run's.
            deferred_until: when Airflow ends the task, in seconds since the epoch; None: never.
        """
        now, left = time.monotonic(), plan.execution_time_left
        return cls(
            time_is_up=None if left is None else now + left,
            outcome_by=None
            if deferred_until is None
            else now + deferred_until - time.time() - OUTCOME_MARGIN,
        )

    def log_seconds(self, most: float) -> float:
        """How long a log may still be waited for, now that its command has ended: up to ``most`` seconds, and
        a moment at least."""
        if self.outcome_by is None:
            return most
        return max(min(most, self.outcome_by - time.monotonic()), LEAST_LOG_SECONDS)
