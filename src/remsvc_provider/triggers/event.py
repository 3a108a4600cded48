"""The trigger's event."""

from __future__ import annotations

from airflow.triggers.base import TriggerEvent

from remsvc_provider.outcome import EVT_RESULTS, EVT_STATE


class OutcomeEvent(TriggerEvent):
    """Airflow logs each event for the task: this one leaves out the output, which is there already."""

    def __repr__(self) -> str:
        return f"TriggerEvent<state {self.payload[EVT_STATE]}, {len(self.payload[EVT_RESULTS])} result(s)>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TriggerEvent) and bool(self.payload == other.payload)

    __hash__ = None  # type: ignore[assignment]
