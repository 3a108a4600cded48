"""What callers can cause at will: of each, the first are told of one by one, of the others how many."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable

from remsvc.server.rate_limit import Rate, RateLimiter

_EACH = Rate(100, 50.0)
_ALL = Rate(200, 10.0)
_TELL_SECONDS = 10.0
# So many are counted apart, and so many are told of at a time: who has many addresses writes no more.
_MOST_APART, _MOST_TOLD = 1000, 20
_OTHERS = "others"


class Bursts:
    """Decides which of them are told of one by one, and tells of the others.

    Args:
        tell: called with who has caused more, how many, how the most of them ended, and in how many seconds.
    """

    def __init__(self, tell: Callable[[str, int, str, float], None]) -> None:
        self._tell = tell
        self._each = RateLimiter()
        self._all = RateLimiter()
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._since = 0.0
        self._telling: asyncio.TimerHandle | None = None

    def admit(self, whose: str, how: str = "") -> bool:
        """Whether to tell of this one; ``whose``: who has caused it; ``how``: how it has ended."""
        if not (self._each.take(whose, _EACH) or self._all.take("", _ALL)):
            return True
        if len(self._counts) >= _MOST_APART and whose not in self._counts:
            whose = _OTHERS
        self._counts[whose][how] += 1
        if self._telling is None:
            self._since = time.monotonic()
            self._telling = asyncio.get_running_loop().call_later(_TELL_SECONDS, self.say)
        return False

    def say(self) -> None:
        """Tell of those that were only counted; to be called before the end."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        counts = sorted(self._counts.items(), key=lambda item: -item[1].total())
        self._counts.clear()
        rest: Counter[str] = sum((count for _, count in counts[_MOST_TOLD:]), Counter())
        told = [*counts[:_MOST_TOLD], *([(_OTHERS, rest)] if rest else [])]
        seconds = time.monotonic() - self._since
        for whose, count in told:
            self._tell(whose, count.total(), count.most_common(1)[0][0], seconds)
