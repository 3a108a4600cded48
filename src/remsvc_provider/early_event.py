"""Keeps an event back that would come before the scheduler knows that the worker that deferred has ended.

A worker that has deferred a task ends, and the executor tells the scheduler, which takes that in once in
each of its rounds. If the trigger's event has the task queued again by then, the scheduler takes the old end
for the end of the resumed task: it fails a task whose command succeeded. That comes of a command that is over
at once, where the scheduler pauses between two rounds or is slow. docs/decisions/0022 has what was measured.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from remsvc_provider.settings import RESUME_AFTER
from remsvc_provider.version_compat import AirflowException

_log = logging.getLogger(__name__)


async def keep_back(deferred_at: float) -> None:
    """Wait until an event may come, in a triggerer: ``dag.test()`` has no scheduler that could err.

    Args:
        deferred_at: when the worker deferred the task, in seconds since the epoch, by its own clock.
    """
    if not _in_triggerer():
        return
    try:
        resume_after = RESUME_AFTER.read()
    except AirflowException as error:
        resume_after = RESUME_AFTER.default
        _log.warning("%s; it is taken for %g", error, resume_after)
    # However wrong one of the clocks is, an event is not kept back for longer than that.
    await asyncio.sleep(min(resume_after, deferred_at + resume_after - time.time()))


def _in_triggerer() -> bool:
    # By the module's name, because loading it takes a second; in a triggerer it is loaded.
    triggerer = sys.modules.get("airflow.jobs.triggerer_job_runner")
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    if triggerer is None or runner is None:
        return False
    return isinstance(getattr(runner, "SUPERVISOR_COMMS", None), triggerer.TriggerCommsDecoder)
