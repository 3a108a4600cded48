"""Tells which of Airflow's processes this is: a worker's, or a triggerer's.

Airflow 3.1.0 to 3.3.2 keep the object by which a process asks its parent in
``task_runner.SUPERVISOR_COMMS``. Its module is looked up and not imported: in the processes in question it is
loaded already, and everywhere else the import would take a second.
"""

from __future__ import annotations

import sys
from typing import Any

_RUNNER = "airflow.sdk.execution_time.task_runner"


def in_worker() -> bool:
    """Whether it is a worker's, with a supervisor, which ``dag.test()`` has not."""
    comms = sys.modules.get("airflow.sdk.execution_time.comms")
    # Not isinstance: what a triggerer's process has is a subclass.
    return comms is not None and type(_parent()) is comms.CommsDecoder


def in_triggerer() -> bool:
    """Whether it is the one in which a triggerer runs its triggers."""
    triggerer = sys.modules.get("airflow.jobs.triggerer_job_runner")
    return triggerer is not None and isinstance(_parent(), triggerer.TriggerCommsDecoder)


def _parent() -> Any:
    return getattr(sys.modules.get(_RUNNER), "SUPERVISOR_COMMS", None)
