"""Fixtures of the command line's tests: the real program as a subprocess, and servers for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.scripted_jobs import ScriptedJobs
from tests.client.scripted_server import ScriptedServer

if TYPE_CHECKING:
    from tests.conftest import Serve, ServerProcess

Remsvc = Callable[..., "subprocess.CompletedProcess[str]"]
Started = Callable[..., "subprocess.Popen[bytes]"]

DEADLINE = 30.0

PROGRAM = (sys.executable, "-m", "remsvc")


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without what would steer remsvc or its colours."""
    steering = ("REMSVC_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "GRPC_VERBOSITY")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(steering)}, **changes}


@pytest.fixture
def remsvc(tmp_path: Path) -> Remsvc:
    """Run ``remsvc`` with arguments; its output as text, or as bytes with ``text=False``."""

    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, text: bool = True, stdin: bytes = b""
    ) -> Any:
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            env=clean_environment(**(env or {})),
            cwd=tmp_path,
            input=stdin.decode() if text else stdin,
            capture_output=True,
            encoding="utf-8" if text else None,
            timeout=50,
            check=False,
        )

    return run


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Start ``remsvc`` with arguments, its output through pipes; it is ended after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            env=clean_environment(),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=DEADLINE)


@pytest.fixture(scope="session")
def server(serve_session: Serve) -> ServerProcess:
    """A real server without TLS and tokens."""
    return serve_session()


@pytest.fixture(scope="session")
def version_1_server(serve_session: Serve) -> ServerProcess:
    """A real server without durable jobs."""
    return serve_session("[jobs]\nenabled = false\n")


@pytest.fixture
def jobs() -> Iterator[ScriptedJobs]:
    """A server of jobs that do what the test says."""
    server = ScriptedJobs()
    yield server
    server.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts scripted servers; they are stopped after the test."""
    servers: list[ScriptedServer] = []

    def start(**handlers: Any) -> ScriptedServer:
        servers.append(ScriptedServer(**handlers))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, or fail the test."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
