"""Warnings that a crowd can cause: the first is logged at once, all others together, once a minute."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from remsvc.server.logs import fields

_logger = logging.getLogger("remsvc.server")

_SAY_AGAIN_SECONDS = 60.0
# So many are counted apart: who has many networks does not have much memory of ours.
_MOST_APART = 1000
_OTHERS = "others"


class CountedWarnings:
    """Counts what happens, by its reason and by whom it comes from, and tells of it in one line.

    Args:
        what: what has happened, as the line begins.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop = asyncio.get_running_loop()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._say_after = 0.0
        self._saying: asyncio.TimerHandle | None = None

    def note(self, reason: str, network: str = "") -> None:
        """It has happened once more."""
        if len(self._counts) >= _MOST_APART and (reason, network) not in self._counts:
            network = _OTHERS
        self._counts[reason, network] += 1
        if self._saying is None:
            wait = max(self._say_after - self._loop.time(), 0.0)
            self._saying = self._loop.call_later(wait, self.say)

    def say(self) -> None:
        """Tell what was not told yet; to be called before the end."""
        if self._saying is not None:
            self._saying.cancel()
            self._saying = None
        if not self._counts:
            return
        self._say_after = self._loop.time() + _SAY_AGAIN_SECONDS
        ((reason, network), of_these), total = self._counts.most_common(1)[0], self._counts.total()
        self._counts.clear()
        _logger.warning(
            "%s %s",
            self._what,
            fields(count=total, mostly=reason, network=network, of_these=of_these),
        )
