"""Leases: a job may be ended when nobody has watched it for long enough."""

from __future__ import annotations

import asyncio
import time

from remsvc.execution.jobs.lifecycle import JobRunner

_LOOK_SECONDS = 1.0


async def end_unwatched(runner: JobRunner) -> None:
    """End the jobs whose lease has run out, again and again."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        for active in list(runner.active.values()):
            lease = active.job.spec.lease
            if lease is None or active.watchers or active.cancelled or now - active.last_watched < lease:
                continue
            runner.cancel_beside(active, f"LEASE_EXPIRED: nobody watched it for {lease:g} s")
