"""A server whose files change while it runs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from remsvc.server.identity.token_file import add_token, list_tokens, revoke_token
from tests.conftest import Serve, ServerProcess
from tests.contract.certificates import Authority, Identity
from tests.contract.client import Client, bearer
from tests.contract.jobs import JobClient
from tests.contract.waiting import wait_until

DEADLINE = 60.0

posix_only = pytest.mark.skipif(os.name != "posix", reason="SIGHUP, owners and modes are POSIX")


@dataclass
class Tokens:
    """A token file."""

    path: Path

    def add(self, identity: str, expires: float | None = None) -> str:
        """A new token; no server knows it yet."""
        return add_token(self.path, identity, expires)[0]

    def revoke(self, position: int) -> None:
        """Take out the token in this place."""
        revoke_token(self.path, list_tokens(self.path)[position].id)


@dataclass
class RunningServer:
    """A server, and its configuration."""

    process: ServerProcess
    config: Path

    def _count(self, words: str) -> int:
        return len(re.findall(words, self.process.log))

    def write(self, text: str) -> None:
        """Replace the configuration in one step."""
        replace(self.config, text)

    def reload(self, words: str = "configuration reloaded") -> None:
        """SIGHUP, and wait for what the log then says."""
        before = self._count(words)
        self.process.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self._count(words) > before, f"{words!r} in the log", DEADLINE)

    def reload_fails(self) -> None:
        """SIGHUP, and the new state is refused."""
        self.reload("configuration NOT reloaded")

    def change(self, change: Callable[[], object], words: str = "configuration reloaded") -> None:
        """Change files, and wait until the server has noticed by itself."""
        before = self._count(words)
        change()
        wait_until(lambda: self._count(words) > before, f"{words!r} in the log", DEADLINE)


def replace(path: Path, content: str | bytes) -> None:
    """Replace a file in one step."""
    new = path.with_name(f"{path.name}.replacement")
    new.touch(mode=0o600)
    new.write_bytes(content if isinstance(content, bytes) else content.encode())
    new.replace(path)


Start = Callable[..., RunningServer]


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens")


@pytest.fixture
def start(serve: Serve, tokens: Tokens) -> Start:
    """``start(text)``: a server with this configuration, in which ``{tokens}`` is the token file."""

    def start_server(text: str = "[server]\nport = 0\ntoken_file = {tokens}\n") -> RunningServer:
        process = serve(text.replace("{tokens}", str(tokens.path)))
        return RunningServer(process, process.stderr_path.with_suffix(".ini"))

    return start_server


@dataclass
class Caller:
    """Somebody's connection."""

    channel: grpc.Channel
    client: Client
    jobs: JobClient


Call = Callable[..., Caller]


@pytest.fixture
def call() -> Iterator[Call]:
    """``call(server, token="", credentials=None)``: a connection of its own."""
    channels: list[grpc.Channel] = []

    def connect(
        server: RunningServer, token: str = "", credentials: grpc.ChannelCredentials | None = None
    ) -> Caller:
        options = (("grpc.use_local_subchannel_pool", 1),)
        target = server.process.target
        if credentials is None:
            channel = grpc.insecure_channel(target, options)
        else:
            channel = grpc.secure_channel(target, credentials, options)
        channels.append(channel)
        metadata = bearer(token) if token else ()
        return Caller(channel, Client(channel, metadata), JobClient(channel, metadata))

    yield connect
    for channel in channels:
        channel.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority, identity: Identity | None = None) -> grpc.ChannelCredentials:
    """Credentials that trust the authority, and present the identity's certificate."""
    key, certificate = identity.pem if identity else (None, None)
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
