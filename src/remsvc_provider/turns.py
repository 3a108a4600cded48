"""Taking turns: a thousand triggers that start at once must not hold up the loop that all share.

What becomes ready at the same time runs in one go, before the loop looks at anything else. So only a few
may wait for the same kind of answer at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from remsvc_provider.per_loop import PerLoop

AT_ONCE = 16


def _no_turns() -> dict[str, asyncio.Semaphore]:
    return defaultdict(lambda: asyncio.Semaphore(AT_ONCE))


_turns = PerLoop(_no_turns)


def turn(kind: str) -> asyncio.Semaphore:
    """For ``async with``, in the running loop. ``kind``: what is waited for, such as a server's name: one
    that does not answer holds up nobody who waits for another."""
    return _turns.get()[kind]
