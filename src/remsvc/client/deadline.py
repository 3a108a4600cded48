"""A time limit that covers several steps."""

from __future__ import annotations

import time

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0


class Backoff:
    """Pauses that double, from 0.2 s to 5 s, shortened at random so that clients do not act in step."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def next(self) -> float:
        """The next pause, in seconds."""
        import random  # slow to load

        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def reset(self) -> None:
        """Begin again with the shortest."""
        self._pause = FIRST_PAUSE


CONNECT_TIMEOUT = 30.0
"""Seconds until a server that accepts a connection but does not answer counts as unavailable."""

RECONNECT_WAIT = 3.0
"""Seconds to wait for a lost connection to be made again: longer than gRPC pauses between attempts."""

ATTEMPT_TIMEOUT = 10.0
"""Seconds after which a call that may be made again is made again."""


class Deadline:
    """Started when it is made. ``timeout`` is in seconds; None never ends."""

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
        return self.remaining() == 0
