"""Limits how many triggers of an event loop wait for the same kind of answer at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from remsvc_provider.per_loop import PerLoop

AT_ONCE = 16
"""So many triggers may wait for the same kind of answer at once: what becomes ready at the same time runs in
one go, before the loop looks at anything else, and a thousand that start together would hold it up."""


def _no_turns() -> dict[str, asyncio.Semaphore]:
    return defaultdict(lambda: asyncio.Semaphore(AT_ONCE))


_turns = PerLoop(_no_turns)


def turn(kind: str) -> asyncio.Semaphore:
    """Limits how many wait at once for the same; for ``async with``, in the running loop.

    Args:
        kind: what is waited for, such as a server's name. Each kind has turns of its own: a server that
            does not answer holds up nobody who waits for another one.
    """
    return _turns.get()[kind]
