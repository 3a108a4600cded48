"""The clients' time limits: the caller's own, for several steps together, and those of connecting."""

from __future__ import annotations

import time

CONNECT_TIMEOUT = 30.0
"""Seconds until a server that accepts a connection but does not answer counts as unavailable."""

RECONNECT_WAIT = 3.0
"""Seconds to wait for a lost connection to be made again: longer than gRPC pauses between attempts."""


class Deadline:
    """A time limit that begins when this object is made.

    Args:
        timeout: seconds; None: there is no limit.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, never below 0; None without a limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def within(self, limit: float) -> float:
        """Seconds left, at most ``limit``."""
        remaining = self.remaining()
        return limit if remaining is None else min(limit, remaining)

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining() == 0
