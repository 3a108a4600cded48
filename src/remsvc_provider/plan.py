"""What a task wants to have run, and how: what the operator hands to a trigger, or to its worker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remsvc_provider.job_keys import JOB_KEYS
from remsvc_provider.origin import Origin
from remsvc_provider.run_options import RunOptions

OUTCOME_MARGIN = 1.0
"""Seconds before Airflow ends a task, in which an outcome still reaches it."""
LEAST_LOG_SECONDS = 0.2
"""Enough for a few lines, if nothing is in their way."""


@dataclass(frozen=True, kw_only=True)
class Plan(RunOptions):
    """Checked commands, and how to run them: see :class:`RunOptions`, and

    Attributes:
        commands: the operator's command dicts.
        stream_timeout: seconds for all of them together.
        metadata: call metadata beside the connection's token.
        origin: the try of the task that asks; without it, no durable jobs are used.
        time_is_up: when ``execution_timeout`` ends the task, on the monotonic clock; None: never.
        outcome_by: when the outcome must be there, as Airflow ends the task then, on the monotonic clock;
            None: never.
        resumed: the server may have the jobs already, from a run that was cut off.
    """

    commands: Sequence[Mapping[str, Any]]
    stream_timeout: float
    metadata: Sequence[tuple[str, str]] = ()
    origin: Origin | None = None
    time_is_up: float | None = None
    outcome_by: float | None = None
    resumed: bool = False

    def log_seconds(self, most: float) -> float:
        """How long a log may still be waited for, now that its command has ended: up to ``most`` seconds, and
        a moment at least."""
        if self.outcome_by is None:
            return most
        return max(min(most, self.outcome_by - time.monotonic()), LEAST_LOG_SECONDS)

    def failed(self, rc: int) -> bool:
        """Whether an exit code counts as a failure."""
        return rc != 0 and rc not in self.skip_on_exit_code

    @property
    def needs_jobs(self) -> list[str]:
        """What of it only a server with durable jobs can do, for a person."""
        needs = [
            f"commands[{index}] {key}"
            for index, command in enumerate(self.commands)
            for key in JOB_KEYS
            if key in command
        ]
        if self.parallel > 1:
            needs.append(f"parallel={self.parallel}")
        if self.durable:
            needs.append("durable=True")
        if self.on_kill != "cancel":
            needs.append(f"on_kill={self.on_kill!r}")
        return needs
