"""Finds out whether anybody still waits for a deferred task's commands, before its jobs are cancelled.

A trigger is cancelled for many reasons: its task was killed, cleared or timed out; its triggerer
stops; it was moved to another triggerer, which runs it already. Only in the first three nobody waits.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from airflow.triggers.base import BaseTrigger

from remsvc.time_limit import TimeLimit

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


async def is_abandoned(
    task_instance: Any, *, durable: bool, timeout: float, logical_date: datetime | None = None
) -> bool | None:
    """Whether nobody waits for the commands of this try any more; None where that cannot be learned.

    Args:
        task_instance: of the trigger.
        durable: a retry takes over what this try has left running.
        timeout: seconds for the answer.
        logical_date: of the DAG run, where it is known: a task that the scheduler defers is deferred again as
            soon as it was cleared, and by this date Airflow tells in which try.
    """
    try:
        with TimeLimit(timeout):
            state = await _task_state(task_instance)
            if state == DEFERRED and not durable and logical_date is not None:
                return await _has_later_try(task_instance, logical_date)
    except Exception:  # noqa: BLE001  whatever it is: the state is not known, so nothing is cancelled
        return None
    # Deferred in a later try, it is that one's business to end this one's jobs.
    return state != DEFERRED and not (durable and state in _MAY_RETRY)


async def _task_state(ti: Any) -> str | None:
    from airflow.sdk.execution_time.comms import GetTaskStates

    request = GetTaskStates(
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=ti.map_index if ti.map_index >= 0 else None,
    )
    states = (await _answer(request)).task_states
    name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state: str | None = states.get(ti.run_id, {}).get(name)
    return state


async def _has_later_try(ti: Any, logical_date: datetime) -> bool:
    from airflow.sdk.execution_time.comms import GetPreviousTI

    # There is no question about a task instance, but one about the last before some date. Airflow 3.2 and
    # later know it; it is asked on 3.3 alone, where a scheduler may have deferred the task.
    request = GetPreviousTI(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        logical_date=logical_date + timedelta(microseconds=1),
        map_index=ti.map_index,
    )
    found = (await _answer(request)).task_instance
    return found is not None and found.run_id == ti.run_id and found.try_number > ti.try_number


async def _answer(request: Any) -> Any:
    """What the triggerer's parent process says."""
    from airflow.sdk.execution_time import task_runner

    # RuntimeTaskInstance.get_task_states() asks in the same way, but blocks a thread, which keeps a
    # triggerer that stops from ending.
    asking: asyncio.Future[Any] = asyncio.ensure_future(task_runner.SUPERVISOR_COMMS.asend(request))
    _asked.add(asking)
    asking.add_done_callback(_forget)
    # Never cancelled: before 3.2 that would leave half an answer for whoever asks next.
    return await asyncio.shield(asking)


def _forget(asking: asyncio.Future[Any]) -> None:
    _asked.discard(asking)
    if not asking.cancelled():
        asking.exception()
