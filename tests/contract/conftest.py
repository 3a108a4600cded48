"""The servers under test and the clients that call them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from .certificates import Authority
from .client import DEADLINE, Client, Metadata
from .commands import COMMANDS

if TYPE_CHECKING:
    from conftest import ServerProcess

EXTERNAL_TARGET = os.environ.get("REMSVC_CONTRACT_TARGET")

HIDDEN_VARIABLE = "REMSVC_CONTRACT_HIDDEN"
"""In the environment of the shared server; no command may see it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Against a server started elsewhere, leave out the tests that need another configuration."""
    if EXTERNAL_TARGET is None:
        return
    own_server = {"serve", "serve_module", "remsvc", "shared_server"}
    for item in items:
        if own_server.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.skip(reason="needs a server of its own"))


@pytest.fixture(scope="session")
def shared_server(serve_session: Callable[..., ServerProcess]) -> ServerProcess:
    """The server for all tests that need no configuration of their own."""
    return serve_session("", env={HIDDEN_VARIABLE: "hidden"})


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> str:
    """``host:port`` of the server under test."""
    server: ServerProcess | None = None
    if EXTERNAL_TARGET is None:
        server = request.getfixturevalue("shared_server")
    return server.target if server is not None else str(EXTERNAL_TARGET)


@pytest.fixture(scope="session")
def client(target: str) -> Iterator[Client]:
    """A client of the server under test."""
    with grpc.insecure_channel(target) as channel:
        yield Client(channel)


Connect = Callable[..., Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(target, metadata=(), credentials=None, options=())``: a client on a connection of its own."""
    channels: list[grpc.Channel] = []

    def open_client(
        target: str,
        metadata: Metadata = (),
        credentials: grpc.ChannelCredentials | None = None,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> Client:
        options = (("grpc.use_local_subchannel_pool", 1), *options)
        if credentials is None:
            channel = grpc.insecure_channel(target, options)
        else:
            channel = grpc.secure_channel(target, credentials, options)
        channels.append(channel)
        return Client(channel, metadata)

    yield open_client
    for channel in channels:
        channel.close()


@pytest.fixture(scope="session")
def remsvc() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``remsvc("verb", ...)`` runs the command line to its end."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "remsvc", *arguments],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def overlong_command(client: Client) -> Iterator[Any]:
    """A command that runs into the default time limit: the future of its answer."""
    call = client.start(COMMANDS.echo_then_sleep("started", 300), tid=30)
    yield call
    call.cancel()


@pytest.fixture(scope="session", autouse=True)
def _start_overlong_command_first(request: pytest.FixtureRequest) -> None:
    """The default limit is 30 s: begin at once, so that the wait goes on beside the other tests."""
    if any("overlong_command" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("overlong_command")


Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, remsvc: Callable[..., Any]) -> Check:
    """``check(text)``: exit code and output of ``remsvc check-config``."""

    def run(text: str, **options: Any) -> tuple[int, str]:
        config = tmp_path / "checked.ini"
        config.write_text(text, encoding="utf-8")
        result = remsvc("check-config", str(config), **options)
        return result.returncode, result.stdout + result.stderr

    return run


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that signs the certificates of servers and clients."""
    return Authority(tmp_path_factory.mktemp("authority"))
