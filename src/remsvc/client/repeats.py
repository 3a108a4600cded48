"""Whether a call that got no answer is made again, and when: the one place where the clients decide that.

Only a call that may arrive twice is repeated: one that creates a job, whose request id finds the job of an
earlier attempt, and one that cancels a job. A watch goes on where it was. What may be tried again there
depends on what has arrived: :class:`~remsvc.client.watch.Watch` decides it, with the same pauses. Everything
else fails at the first error, because a command must never run twice.

A program that repeats calls by its own rules, such as the Airflow provider, asks for a single attempt
(``repeat=False``), so that no two loops stand around one call. The transports repeat nothing: they connect
again for the next call, and move a call that has not begun from a connection that ends to another one.
"""

from __future__ import annotations

from remsvc.client.deadline import Deadline
from remsvc.errors import ServerError

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0

ATTEMPT_TIMEOUT = 10.0
"""Seconds after which an attempt that got no answer is given up, so that another one can be made."""


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


class Repeats:
    """The attempts of one call that may arrive twice.

    Args:
        deadline: the caller's time limit for all attempts together.
        allowed: False: there is only one attempt.
    """

    def __init__(self, deadline: Deadline, *, allowed: bool) -> None:
        self._deadline = deadline
        self._allowed = allowed
        self._backoff = Backoff()
        self._sent = False

    def pause_after(self, failure: ServerError) -> float:
        """How long to wait, in seconds, before the next attempt.

        Raises:
            ServerError: ``failure``, where no attempt follows. Its ``sent`` speaks of all attempts.
        """
        failure.count_earlier_attempts(sent=self._sent)
        self._sent = failure.sent
        pause = self._backoff.next()
        if not self._allowed or self._deadline.within(pause) < pause:
            raise failure
        return pause
