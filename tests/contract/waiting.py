"""Waiting for events, with a generous deadline; and commands that wait for the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, deadline: float = 30.0) -> T:
    """Wait until ``condition()`` is true and return its value; fail naming ``what`` otherwise."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s in vain for: {what}")
        time.sleep(0.01)
    return value


def go_file(path: Path) -> str:
    """A shell text that ends once ``path`` is there."""
    return f"until [ -e {path} ]; do sleep 0.01; done"
