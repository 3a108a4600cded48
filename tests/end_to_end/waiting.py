"""Waiting for what must happen."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

DEADLINE = 120.0
"""Seconds to wait for something that must happen; it usually does within a few."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {DEADLINE:.0f} s for {what}")
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        # A zombie has ended, whoever has yet to reap it.
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
