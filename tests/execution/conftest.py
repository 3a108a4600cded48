"""Engines with their real supervisors."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from remsvc.execution.engine import Engine, Process, ProcessSpec
from remsvc.execution.engine_choice import create_engine
from remsvc.execution.jobs.model import JobLimits

from .job_host import JobHost

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


@pytest.fixture
def duration() -> str:
    """A number of seconds that no other process has among its arguments."""
    return f"{time.time_ns() % 10**10 + 10**6}.5"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[JobHost]:
    """The durable-jobs engine, open, on a state directory of its own."""
    host = JobHost(tmp_path / "state")
    await host.open()
    yield host
    await host.end()


@pytest.fixture
async def host_with(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[JobHost]]]:
    """``await host_with(max_running=2)``: the same with limits."""
    hosts: list[JobHost] = []

    async def open_host(**limits: Any) -> JobHost:
        host = JobHost(tmp_path / f"state{len(hosts)}", JobLimits(**limits))
        hosts.append(host)
        await host.open()
        return host

    yield open_host
    for host in hosts:
        await host.end()
