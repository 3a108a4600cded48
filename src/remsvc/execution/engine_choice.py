"""Which engine runs the processes on this platform."""

from __future__ import annotations

import sys

from remsvc.execution.engine import Engine
from remsvc.execution.supervisor.cgroup import GroupParent
from remsvc.execution.supervisor.protocol import NO_LIMITS, OUTPUT_WAIT, ProcessLimits


def create_engine(
    limits: ProcessLimits = NO_LIMITS, groups: GroupParent | None = None, output_wait: float = OUTPUT_WAIT
) -> Engine:
    """The engine for this platform.

    Args:
        limits: what each process is held to. This and the rest is for POSIX alone.
        groups: where control groups for processes can be had; None for nowhere.
        output_wait: seconds that it is waited for output that others pass on, when its process has ended.
    """
    if sys.platform == "win32":
        from remsvc.execution.windows import WindowsEngine

        return WindowsEngine()
    from remsvc.execution.posix import PosixEngine

    return PosixEngine(groups=groups, limits=limits, output_wait=output_wait)
