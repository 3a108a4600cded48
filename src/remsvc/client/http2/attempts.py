"""Remembers attempts to connect: when the next one is due, and how the last one has failed."""

from __future__ import annotations

import random
import time

from remsvc.client.http2.endpoint import connect_failure
from remsvc.client.transport import FIRST_RECONNECT_PAUSE, LONGEST_RECONNECT_PAUSE, CallError
from remsvc.status import StatusCode

_GROWTH = 1.6


class Attempts:
    """The attempts of one transport so far.

    Attributes:
        failure: the error of the last attempt, which calls get that need a connection; None where it has
            succeeded, or none was made yet.
    """

    def __init__(self) -> None:
        self.failure: CallError | None = None
        self._pause = FIRST_RECONNECT_PAUSE
        self._due = 0.0

    def pause(self) -> float:
        """Seconds until the next attempt is due; 0 where it is due now."""
        return max(self._due - time.monotonic(), 0.0)

    def succeeded(self) -> None:
        """An attempt has succeeded."""
        self.failure = None
        self._pause = FIRST_RECONNECT_PAUSE
        # The next attempt waits as well: a server that ends each connection at once must not be besieged.
        self._due = time.monotonic() + FIRST_RECONNECT_PAUSE

    def failed(self, reason: str) -> None:
        """An attempt has failed, and why."""
        self.failure = CallError(StatusCode.UNAVAILABLE, connect_failure(reason), sent=False)

        # Shortened at random, so that clients do not act in step.
        self._due = time.monotonic() + self._pause * random.uniform(0.8, 1.0)  # noqa: S311
        self._pause = min(self._pause * _GROWTH, LONGEST_RECONNECT_PAUSE)

    def raise_failure(self) -> None:
        """Raise the error of the last attempt, if it has failed: a new object for each caller."""
        if (error := self.failure) is not None:
            raise CallError(error.code, error.details, error.trailers, sent=error.sent)
