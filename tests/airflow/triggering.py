"""Running triggers as Airflow's triggerer does."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import uuid
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.jobs import triggerer_job_runner
from airflow.sdk.execution_time import comms, task_runner

from remsvc_provider.origin import Origin
from remsvc_provider.triggers.remsvc import RemSvcTrigger

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferred

DEADLINE = 30.0
RUN_STARTED = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)

_KILL_MESSAGE = getattr(triggerer_job_runner, "_USER_ACTION_CANCEL_MSG", None)


def task_instance(**changes: Any) -> SimpleNamespace:
    """A try of a task, with what Airflow's own task instances have in a worker and in a triggerer."""
    values = {
        "id": uuid.uuid4(),
        "dag_id": "dag",
        "run_id": f"manual__{uuid.uuid4()}",
        "task_id": "remote",
        "map_index": -1,
        "try_number": 1,
        "max_tries": 0,
        "task": SimpleNamespace(retries=0),
        "context_carrier": None,
    }
    return SimpleNamespace(**{**values, **changes})


def next_try(ti: SimpleNamespace, *, cleared: bool = False) -> SimpleNamespace:
    """The try after this one: of a retry, or after somebody cleared the task."""
    max_tries = ti.try_number + ti.task.retries if cleared else ti.max_tries
    changes = {"id": uuid.uuid4(), "try_number": ti.try_number + 1, "max_tries": max_tries}
    return SimpleNamespace(**{**vars(ti), **changes})


def context(ti: SimpleNamespace, started: datetime = RUN_STARTED, cleared: int = 0) -> dict[str, Any]:
    """As much of a task's context as the operator looks at."""
    return {"ti": ti, "dag_run": SimpleNamespace(start_date=started, clear_number=cleared)}


def deferral(method: Callable[..., object], *arguments: Any, **named: Any) -> TaskDeferred:
    """What an operator's method hands over to the triggerer."""
    with pytest.raises(TaskDeferred) as caught:
        method(*arguments, **named)
    return caught.value


def trigger(
    conn_id: str, *cmds: str | dict[str, Any], ti: SimpleNamespace | None = None, **options: Any
) -> RemSvcTrigger:
    """A trigger as the triggerer makes it from what is stored."""
    commands = [{"cmd": cmd} if isinstance(cmd, str) else cmd for cmd in cmds]
    ti = ti or task_instance()
    options = {"stream_timeout": 60.0, "origin": Origin.of(ti, context(ti)).arguments(), **options}
    return restored(RemSvcTrigger(commands=commands, grpc_conn_id=conn_id, **options), ti)


def restored(original: RemSvcTrigger, ti: SimpleNamespace | None = None) -> RemSvcTrigger:
    """Another trigger, from the serialized arguments of this one."""
    _, arguments = original.serialize()
    again = RemSvcTrigger(**json.loads(json.dumps(arguments)))
    # In the triggerer, a task instance has neither its task nor max_tries.
    known = vars(ti or original.task_instance).items()
    again.task_instance = SimpleNamespace(**{k: v for k, v in known if k not in ("task", "max_tries")})
    return again


async def fire(trigger: RemSvcTrigger) -> dict[str, Any]:
    """Run a trigger to its one event: the payload, after a trip through JSON."""
    async with aclosing(trigger.run()) as events:
        payloads = [event.payload async for event in events]
    await trigger.cleanup()
    assert len(payloads) == 1
    assert [name for name in payloads[0] if name != "try_number"] == ["state", "results", "error_msg"]
    event: dict[str, Any] = json.loads(json.dumps(payloads[0]))
    return event


def results(event: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of an event, by command number."""
    return [event["results"][tid] for tid in sorted(event["results"], key=int)]


class Triggerer:
    """Airflow's own code that runs a trigger, and the ways in which it ends one."""

    def __init__(self, trigger: RemSvcTrigger) -> None:
        self.trigger = trigger
        self._runner = triggerer_job_runner.TriggerRunner()
        self._runner.triggers[1] = {"name": "trigger", "events": 0}
        arguments: list[Any] = [1, trigger]
        if "timeout_after" in inspect.signature(self._runner.run_trigger).parameters:
            arguments.append(getattr(trigger, "timeout_after", None))
        elif not hasattr(trigger, "timeout_after"):
            trigger.timeout_after = None
        self.task = asyncio.create_task(self._runner.run_trigger(*arguments))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [entry[1].payload for entry in self._runner.events]

    async def lose_it(self) -> None:
        """What happens when the triggerer finds that the trigger is no longer one of its own: the task
        was killed or cleared, it timed out, or another triggerer has taken the trigger."""
        self.task.cancel(*([_KILL_MESSAGE] if _KILL_MESSAGE else []))
        await self._ended()

    async def stop(self) -> None:
        """The triggerer shuts down."""
        self.task.cancel()
        await self._ended()

    async def _ended(self) -> None:
        done, _ = await asyncio.wait([self.task], timeout=DEADLINE)
        assert done, "the trigger does not end"
        if not self.task.cancelled():  # it was through in that very moment
            self.task.result()


class Supervisor:
    """Stands in for the process that answers a triggerer's questions: what it says about tasks."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, str | None]] = {}
        self.tries: dict[str, int] = {}
        self.answers = True
        self.delay = 0.0
        self.asked: list[Any] = []

    def set(self, ti: SimpleNamespace, state: str | None) -> None:
        name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
        self.states[ti.run_id] = {name: state}

    async def asend(self, request: Any) -> Any:
        self.asked.append(request)
        if not self.answers:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.delay)
        if not isinstance(request, comms.GetTaskStates):
            runs = [
                SimpleNamespace(run_id=run_id, try_number=number) for run_id, number in self.tries.items()
            ]
            return SimpleNamespace(task_instance=runs[-1] if runs else None)
        return SimpleNamespace(task_states=self.states)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """What the triggerer's parent process says."""
    fake = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", fake, raising=False)
    return fake


async def until(condition: Callable[[], Any], what: str = "it") -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"gave up waiting for {what}"
        await asyncio.sleep(0.02)
