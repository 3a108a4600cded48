"""Attempts to connect, one after another: when the next one is due, and how the last one failed."""

from __future__ import annotations

import random
import time

from remsvc.client.http2.endpoint import connect_failure
from remsvc.client.transport import FIRST_RECONNECT_PAUSE, LONGEST_RECONNECT_PAUSE, CallError
from remsvc.status import StatusCode

_GROWTH = 1.6


class Attempts:
    """What is known of the attempts so far.

    Attributes:
        failure: how calls fail that need a connection; None where the last attempt succeeded, or there was
            none.
    """

    def __init__(self) -> None:
        self.failure: CallError | None = None
        self._pause = FIRST_RECONNECT_PAUSE
        self._due = 0.0

    def pause(self) -> float:
        """Seconds until the next one is due; 0 where it is."""
        return max(self._due - time.monotonic(), 0.0)

    def succeeded(self) -> None:
        """There is a connection."""
        self.failure = None
        self._pause = FIRST_RECONNECT_PAUSE
        # It may be of no use, as the server goes away at once, again and again.
        self._due = time.monotonic() + FIRST_RECONNECT_PAUSE

    def failed(self, reason: str) -> None:
        """There is none, and why."""
        self.failure = CallError(StatusCode.UNAVAILABLE, connect_failure(reason), sent=False)

        # Shortened at random, so that clients do not act in step.
        self._due = time.monotonic() + self._pause * random.uniform(0.8, 1.0)  # noqa: S311
        self._pause = min(self._pause * _GROWTH, LONGEST_RECONNECT_PAUSE)

    def raise_failure(self) -> None:
        """Raise how the last one failed, where it did: a new error for each caller."""
        if (error := self.failure) is not None:
            raise CallError(error.code, error.details, error.trailers, sent=error.sent)
