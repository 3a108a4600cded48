"""Whether anybody still waits for a deferred task's commands, asked before its jobs are cancelled.

A trigger is cancelled for many reasons: its task was killed, cleared or timed out; its triggerer
stops; it was moved to another triggerer, which runs it already. Only in the first three nobody waits.
"""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.triggers.base import BaseTrigger

AIRFLOW_TELLS_KILLS = hasattr(BaseTrigger, "on_kill")
"""Airflow 3.3 and later call a trigger's ``on_kill()``; before, a kill looks like any cancellation."""

ANSWER_TIMEOUT = 5.0
"""Seconds for the triggerer to tell a task's state. While it stops, it may never do."""
KILL_ANSWER_TIMEOUT = 20.0
"""The same where it does not stop. Its first answer may take long: it builds an API server for itself, on a
busy host in more than ten seconds. Airflow gives ``on_kill()`` 30 seconds by default."""

DEFERRED = "deferred"
# States from which a retry may go on to take over the job of this try.
_MAY_RETRY = ("up_for_retry", "up_for_reschedule", "scheduled", "queued", "running", "restarting")

_asked: set[asyncio.Future[Any]] = set()


async def is_abandoned(task_instance: Any, *, durable: bool, timeout: float) -> bool | None:
    """Whether nobody waits for the commands of this try any more; None where that cannot be learned.

    Args:
        task_instance: of the trigger.
        durable: a retry takes over what this try has left running.
        timeout: seconds for the answer.
    """
    try:
        states = await _task_states(task_instance, timeout)
    except Exception:  # noqa: BLE001  whatever it is: the state is not known, so nothing is cancelled
        return None
    if states is None:
        return None
    ti = task_instance
    name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state = states.get(ti.run_id, {}).get(name)
    # Deferred in a later try, it is that one's business to end this one's jobs.
    return state != DEFERRED and not (durable and state in _MAY_RETRY)


async def _task_states(ti: Any, timeout: float) -> dict[str, dict[str, str | None]] | None:
    """The states of the task by run and name, or None where the triggerer does not answer."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetTaskStates

    request = GetTaskStates(
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=ti.map_index if ti.map_index >= 0 else None,
    )
    # RuntimeTaskInstance.get_task_states() asks in the same way, but blocks a thread, which keeps a
    # triggerer that stops from ending.
    asking: asyncio.Future[Any] = asyncio.ensure_future(task_runner.SUPERVISOR_COMMS.asend(request))
    _asked.add(asking)
    asking.add_done_callback(_forget)
    # Never cancelled: before 3.2 that would leave half an answer for whoever asks next.
    done, _ = await asyncio.wait([asking], timeout=timeout)
    return dict(asking.result().task_states) if done else None


def _forget(asking: asyncio.Future[Any]) -> None:
    _asked.discard(asking)
    if not asking.cancelled():
        asking.exception()
