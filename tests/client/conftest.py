"""Fixtures of the client's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest

from remsvc.client import ConnectionOptions

from .flavours import AnyClient, asyncio_client, blocking_client
from .scripted_jobs import ScriptedJobs
from .scripted_server import ScriptedServer

DEADLINE = 30.0

Connect = Callable[[ConnectionOptions], AbstractContextManager[AnyClient]]


@pytest.fixture(params=["http2", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    """A test that uses it runs for both transports."""
    chosen: str = request.param
    return chosen


@pytest.fixture(params=[asyncio_client, blocking_client], ids=["asyncio", "blocking"])
def connect(request: pytest.FixtureRequest, transport: str) -> Connect:
    """Opens a client of any flavour over any transport; a test that uses it runs for all four."""
    opener: Connect = request.param
    return lambda options: opener(replace(options, transport=transport))


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


@pytest.fixture
def jobs() -> Iterator[ScriptedJobs]:
    """A server of jobs that do what the test says."""
    server = ScriptedJobs()
    yield server
    server.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until a condition holds, or fails the test."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.01)

    return wait
