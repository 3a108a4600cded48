"""An engine with its real supervisor."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from remsvc.execution.engine import Engine, Process, ProcessSpec, create_engine

Shell = Callable[..., Process]

_numbers = itertools.count(1)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    if sys.platform == "win32":
        pytest.skip("POSIX; the Windows engine has tests of its own")
    engine = create_engine()
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture
def shell(engine: Engine) -> Shell:
    """Start shell text: ``shell("echo hi", time_limit=1.0)``."""

    def start(text: str, **options: object) -> Process:
        mark = f"test-{os.getpid()}-{next(_numbers)}"
        spec = {"env": {"PATH": os.environ["PATH"], "REMSVC_COMMAND_ID": mark}, "cwd": "/", **options}
        return engine.start(ProcessSpec(("/bin/sh", "-c", text), **spec))  # type: ignore[arg-type]

    return start
