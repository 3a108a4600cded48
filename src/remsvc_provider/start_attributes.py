"""The attributes by which Airflow asks an operator whether a triggerer starts its task, and with what.

What decides it is loaded when Airflow asks. A worker does not ask, and need not load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.triggers.base import StartTriggerArgs

    from remsvc_provider.start_in_triggerer import StartableTask


class StartFromTrigger:
    """The attribute ``start_from_trigger`` of an operator: Airflow reads it to learn whether a triggerer
    starts the task; the operator sets it to what its caller wants."""

    def __set_name__(self, owner: type[StartableTask], name: str) -> None:
        self._operator = owner

    def __get__(self, task: StartableTask | None, owner: type) -> bool:
        # Of the class, Airflow asks for mapped tasks, whose values the scheduler does not know.
        return task is not None and _trigger_parameters(task, self._operator) is not None

    def __set__(self, task: StartableTask, wanted: bool | None) -> None:
        task.__dict__["start_from_trigger"] = wanted


class StartArguments:
    """The attribute ``start_trigger_args`` of an operator: what the trigger that starts the task is made
    of."""

    def __set_name__(self, owner: type[StartableTask], name: str) -> None:
        self._operator = owner

    def __get__(self, task: StartableTask | None, owner: type) -> StartTriggerArgs | None:
        found = None if task is None else _trigger_parameters(task, self._operator)
        if found is None:
            return None
        from airflow.triggers.base import StartTriggerArgs

        from remsvc_provider.start_in_triggerer import HORIZON
        from remsvc_provider.task_to_start import TRIGGER

        return StartTriggerArgs(
            trigger_cls=TRIGGER,
            next_method="execute_complete",
            trigger_kwargs={"parameters": found},
            timeout=HORIZON,
        )


def _trigger_parameters(task: StartableTask, operator: type[StartableTask]) -> str | None:
    if "start_from_trigger" not in task.__dict__:
        return None  # it is being made
    from remsvc_provider.start_in_triggerer import trigger_parameters

    return trigger_parameters(task, operator)
