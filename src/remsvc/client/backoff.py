"""Pauses between attempts."""

from __future__ import annotations

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
