"""Fixtures of the command line's tests: the real program as a subprocess, and servers for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.scripted_server import ScriptedServer

if TYPE_CHECKING:
    from tests.conftest import Serve, ServerProcess

Remsvc = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAM = (sys.executable, "-m", "remsvc")


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without what would steer remsvc or its colours."""
    steering = ("REMSVC_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "GRPC_VERBOSITY")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(steering)}, **changes}


@pytest.fixture
def remsvc(tmp_path: Path) -> Remsvc:
    """Run ``remsvc`` with arguments; its output as text, or as bytes with ``text=False``."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, text: bool = True) -> Any:
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            env=clean_environment(**(env or {})),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8" if text else None,
            timeout=50,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def server(serve_session: Serve) -> ServerProcess:
    """A real server without TLS and tokens."""
    return serve_session()


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
