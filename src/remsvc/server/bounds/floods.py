"""Counts events that callers can cause at will, and logs them in few lines: no crowd fills log or memory."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from remsvc.server.bounds.rate_limit import Rate, RateLimiter
from remsvc.server.logs import fields

_logger = logging.getLogger("remsvc.server")

# So many are counted apart, so that a peer with many addresses does not take much memory.
_MOST_APART = 1000
_OTHERS = "others"


class _CountedEvents(ABC):
    """Counts events, by who has caused them and how they ended, until it is time to tell of them."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._telling: asyncio.TimerHandle | None = None

    def _count(self, whose: str, how: str, seconds: float) -> None:
        """Count one more, which is told of in so many seconds, or together with others before that."""
        if len(self._counts) >= _MOST_APART and whose not in self._counts:
            whose = _OTHERS
        self._counts[whose][how] += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(seconds, self.say)

    def say(self) -> None:
        """Tell of what was counted and not told yet; to be called before the end."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._counts:
            counts, self._counts = self._counts, defaultdict(Counter)
            self._tell(counts)

    @abstractmethod
    def _tell(self, counts: Mapping[str, Counter[str]]) -> None:
        """Tell of what was counted: how often it ended how, by who has caused it."""


class Bursts(_CountedEvents):
    """Lets the first events of each be told of one by one, and tells how many more there were.

    Args:
        tell: called with who has caused more, how many, how the most of them ended, and in how many seconds.
    """

    _EACH, _ALL = Rate(100, 50.0), Rate(200, 10.0)
    _TELL_SECONDS = 10.0
    _MOST_TOLD = 20  # at a time: who has many addresses writes no more lines

    def __init__(self, tell: Callable[[str, int, str, float], None]) -> None:
        super().__init__()
        self._tell_more = tell
        self._each, self._all = RateLimiter(), RateLimiter()
        self._since = 0.0

    def admit(self, whose: str, how: str = "") -> bool:
        """Whether to tell of this one; ``whose``: who has caused it; ``how``: how it has ended."""
        if not (self._each.take(whose, self._EACH) or self._all.take("", self._ALL)):
            return True
        if not self._counts:
            self._since = time.monotonic()
        self._count(whose, how, self._TELL_SECONDS)
        return False

    def _tell(self, counts: Mapping[str, Counter[str]]) -> None:
        most_first = sorted(counts.items(), key=lambda item: -item[1].total())
        told, rest = most_first[: self._MOST_TOLD], most_first[self._MOST_TOLD :]
        if rest:
            told.append((_OTHERS, sum((count for _, count in rest), Counter())))
        seconds = time.monotonic() - self._since
        for whose, count in told:
            self._tell_more(whose, count.total(), count.most_common(1)[0][0], seconds)


class CountedWarnings(_CountedEvents):
    """Warns of something at once, and of all that follows once a minute, in one line for all of it.

    Args:
        what: what has happened, as the line begins.
    """

    _AGAIN_SECONDS = 60.0

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._say_after = 0.0

    def note(self, reason: str, network: str = "") -> None:
        """It has happened once more, for this reason, to somebody of this network."""
        self._count(network, reason, max(self._say_after - asyncio.get_running_loop().time(), 0.0))

    def _tell(self, counts: Mapping[str, Counter[str]]) -> None:
        self._say_after = asyncio.get_running_loop().time() + self._AGAIN_SECONDS
        total = sum(count.total() for count in counts.values())
        network, of_these = max(counts.items(), key=lambda item: max(item[1].values()))
        ((reason, number),) = of_these.most_common(1)
        about = fields(count=total, mostly=reason, network=network, of_these=number)
        _logger.warning("%s %s", self._what, about)
