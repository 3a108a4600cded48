"""How a run of commands ended: as a trigger's event tells it to the operator, and as the XCom has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypedDict

EVT_STATE = "state"
EVT_RESULTS = "results"
EVT_ERROR = "error_msg"
EVT_TRY = "try_number"
"""Number of the try that the event belongs to; only of tasks started in the triggerer, as the scheduler
stores no number with their deferral."""

NOT_STARTED = "NOT_STARTED"
"""State of an event by which a triggerer hands a task over to a worker, to be started there."""


class RunState(str, Enum):
    """How a run ended. ``CANCELLED``: its ``stream_timeout`` ran out."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class CommandReport(TypedDict):
    """How one command ended, as events and XComs have it.

    Attributes:
        tid: its number, from 1 on.
        rc: its exit code.
        out, err: the beginnings of its outputs.
        hsh: the hash of its text that travelled with it.
        cmd: its text, without secrets.
    """

    tid: int
    rc: int
    out: str
    err: str
    hsh: str
    cmd: str


Results = dict[int, CommandReport]
"""By ``tid``."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: see :class:`RunState`.
        results: the answers that came, by ``tid``.
        error: None for success, else one line or more for a person.
    """

    state: RunState
    results: Results
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """The trigger event's payload."""
        return {EVT_STATE: self.state.value, EVT_RESULTS: self.results, EVT_ERROR: self.error}


@dataclass
class RemSvcResult:
    """What the operator pushes to XCom.

    Attributes:
        state: ``"SUCCESS"``; the task fails in every other state.
        results: what ``result_handler`` made of the results.
        error_msg: None.
    """

    state: str
    results: Any = field(default_factory=list)
    error_msg: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The XCom value."""
        return {"state": self.state, "results": self.results, "error_msg": self.error_msg}
