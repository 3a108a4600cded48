"""Counts how much of ``stream_timeout`` is left for a new job, and for those that run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from remsvc.client.jobs import Job
from remsvc.errors import RemSvcError
from remsvc.time_limit import TimeLimit


class TimeIsUpError(RemSvcError):
    """``stream_timeout`` has passed."""


class TimeBudget:
    """What is left of the time that a task's commands have together.

    It counts from when this process has first asked for a job. A triggerer that was started again would
    begin anew; so what jobs have taken by the server's clock counts as well, and of both the larger.

    While no command runs, and only the log of those that have ended is written, time does not count.

    Args:
        seconds: the whole.
        request_id: what the request ids of the jobs that count begin with.
        grace: seconds beyond it in which :meth:`limit` lets the server itself end what runs.
    """

    def __init__(self, seconds: float, request_id: str, grace: float) -> None:
        self._seconds = seconds
        self._request_id = request_id
        self._made = time.monotonic()
        self._started: float | None = None
        self._taken = timedelta()
        self._taken_until: datetime | None = None
        self._followed = self._logged = 0  # commands; and those of them that have ended
        self._stopped_at: float | None = None
        self._not_counted = 0.0
        self._limit = TimeLimit(seconds + grace)
        self._limit_left: float | None = None

    @property
    def passed(self) -> float:
        """Seconds since this object was made."""
        return time.monotonic() - self._made

    @property
    def limit(self) -> TimeLimit:
        """The time limit for the block in which the commands are followed."""
        return self._limit

    def note(self, job: Job) -> None:
        """Learn from a job that has ended how long it took on the server."""
        if job.created_at is None or job.ended_at is None:
            return
        if not job.request_id.startswith(f"{self._request_id}/"):
            return
        # What ran side by side counts once.
        begin = max(job.created_at, self._taken_until or job.created_at)
        self._taken += max(job.ended_at - begin, timedelta())
        self._taken_until = max(job.ended_at, self._taken_until or job.ended_at)

    def left(self) -> float:
        """Seconds that are left for a new job.

        Raises:
            TimeIsUpError: none are left.
        """
        now = time.monotonic()
        if self._started is None:
            self._started = now
        passed = max(now - self._started - self._not_counted, self._taken.total_seconds())
        left = self._seconds - passed
        if left <= 0:
            raise TimeIsUpError(f"stream_timeout of {self._seconds:g} s exceeded")
        return max(left, 0.001)

    @contextmanager
    def following(self) -> Iterator[Callable[[], None]]:
        """Around one command. Yields a function to call once, when the command is known to have ended."""
        ended = False

        def note_end() -> None:
            nonlocal ended
            ended = True
            self._logged += 1
            self._stop_or_go_on()

        self._followed += 1
        self._stop_or_go_on()
        try:
            yield note_end
        finally:
            self._followed -= 1
            self._logged -= ended
            self._stop_or_go_on()

    def _stop_or_go_on(self) -> None:
        only_logging = 0 < self._followed == self._logged
        if only_logging and self._stopped_at is None:
            self._stopped_at = time.monotonic()
            self._limit_left = self._limit.left
            self._limit.restart(None)
        elif not only_logging and self._stopped_at is not None:
            self._not_counted += time.monotonic() - self._stopped_at
            self._stopped_at = None
            self._limit.restart(self._limit_left)
