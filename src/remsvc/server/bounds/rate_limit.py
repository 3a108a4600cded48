"""Limits how often each identity may do something, with a token bucket for each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

_SWEEP = 1_000
_RATE = re.compile(r"([1-9][0-9]{0,6})/([smh])")
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` of something in ``seconds``, such as commands or calls."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """Of ``100/m``; None where the text is none."""
        match = _RATE.fullmatch(text)
        return cls(int(match[1]), _PERIODS[match[2]]) if match else None

    def in_a_second(self) -> float:
        """How many on average."""
        return self.count / self.seconds

    def __str__(self) -> str:
        return f"{self.count}/{ {1.0: 's', 60.0: 'm', 3600.0: 'h'}.get(self.seconds, f'{self.seconds:g} s') }"


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
