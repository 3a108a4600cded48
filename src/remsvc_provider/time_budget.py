"""How much of ``stream_timeout`` is left for a new job."""

from __future__ import annotations

import time
from datetime import datetime

from remsvc.client.jobs import Job
from remsvc.errors import RemSvcError


class TimeIsUpError(RemSvcError):
    """``stream_timeout`` has passed."""


class TimeBudget:
    """Counts from the first job on: from when one was first asked for here, and from its creation, on the
    server's clock, which may differ from ours. So it goes on after a restart.

    Args:
        seconds: the whole.
        request_id: what the request ids of the jobs that count begin with.
    """

    def __init__(self, seconds: float, request_id: str) -> None:
        self._seconds = seconds
        self._request_id = request_id
        self._made = time.monotonic()
        self._started: float | None = None
        self._first_created: datetime | None = None
        self._server_time: datetime | None = None

    @property
    def passed(self) -> float:
        """Seconds since this object was made."""
        return time.monotonic() - self._made

    def note(self, job: Job) -> None:
        """Learn from a job how late it is on the server."""
        if job.created_at is None or not job.request_id.startswith(f"{self._request_id}/"):
            return
        self._first_created = min(self._first_created or job.created_at, job.created_at)
        self._server_time = max(self._server_time or job.created_at, job.ended_at or job.created_at)

    def left(self) -> float:
        """Seconds.

        Raises:
            TimeIsUpError: there are none.
        """
        now = time.monotonic()
        if self._started is None:
            self._started = now
        passed = now - self._started
        if self._first_created is not None and self._server_time is not None:
            passed = max(passed, (self._server_time - self._first_created).total_seconds())
        left = self._seconds - passed
        if left <= 0:
            raise TimeIsUpError(f"stream_timeout of {self._seconds:g} s exceeded")
        return max(left, 0.001)
