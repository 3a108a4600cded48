"""How often an identity may ask for a command: a token bucket each."""

from __future__ import annotations

import time
from collections.abc import Callable

from remsvc.server.policy.decision import Rate

_SWEEP = 1_000


class RateLimiter:
    """Buckets that hold as many tokens as a rate counts, and fill up again in its time.

    Kept is when a bucket will be full again: one number each, and none for a full one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full: dict[str, float] = {}
        self._sweep_at = _SWEEP

    def take(self, identity: str, rate: Rate) -> float:
        """Take a token; 0.0, or the seconds until there is one where there is none."""
        now = self._clock()
        full = max(self._full.get(identity, now), now) + rate.seconds / rate.count
        wait = full - now - rate.seconds
        if wait > 1e-6:  # not for the rounding of a bucket that holds just one
            return wait
        self._full[identity] = full
        if len(self._full) >= self._sweep_at:
            self._full = {name: when for name, when in self._full.items() if when > now}
            self._sweep_at = 2 * max(len(self._full), _SWEEP)
        return 0.0
