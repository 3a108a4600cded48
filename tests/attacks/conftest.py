"""What attacks are made from: raw peers, a good client, and waiting for what must happen."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from tests.attacks.raw_http2 import ACK, SETTINGS, Frame, RawPeer, frame
from tests.conftest import DEADLINE, ServerProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "REMSVC_FOREIGN" in os.environ:
        return
    for item in items:
        if item.get_closest_marker("foreign"):
            item.add_marker(pytest.mark.skip(reason="installs clients: make foreign"))


TOKEN = "a-good-client-s-own-token-0123456789"
CREDENTIALS = ("authorization", f"Bearer {TOKEN}")
METADATA = (CREDENTIALS,)
AUTH = f"[auth]\ngood = {TOKEN}\n"

ATTACKERS_TOKEN = "an-attacker-s-own-token-0123456789"
ATTACKER = ("authorization", f"Bearer {ATTACKERS_TOKEN}")
AUTH_BOTH = f"{AUTH}other = {ATTACKERS_TOKEN}\n"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, whichever user a command runs as; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def raw(server: ServerProcess, source: str = "") -> RawPeer:
    """A connection to a server, with nothing sent yet."""
    return RawPeer(server.host, server.port, source=source, timeout=DEADLINE)


def greeted(server: ServerProcess, source: str = "") -> RawPeer:
    """A connection to a server that was begun as it should be."""
    peer = raw(server, source)
    peer.greet()
    peer.send(frame(SETTINGS, ACK, 0))
    return peer


@contextmanager
def good_client(server: ServerProcess) -> Iterator[RemSvc_pb2_grpc.RemSvcStub]:
    """A client that does as it should, over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(server.target, options=options) as channel:
        yield RemSvc_pb2_grpc.RemSvcStub(channel)


@contextmanager
def a_good_client_is_served(server: ServerProcess, growth: float) -> Iterator[None]:
    """Within, and then once more, its pings succeed; the server grows by no more than so many bytes."""
    process = psutil.Process(server.process.pid)
    before = most = process.memory_info().rss
    begun, stop = threading.Event(), threading.Event()

    def ping() -> None:
        nonlocal most
        over = False
        while not over:
            over = stop.wait(0.002)
            stub.Ping(RemSvc_pb2.PingMsg(), metadata=METADATA, timeout=DEADLINE)
            most = max(most, process.memory_info().rss)
            begun.set()

    with good_client(server) as stub, ThreadPoolExecutor(1) as executor:
        pinging = executor.submit(ping)
        try:
            begun.wait(DEADLINE)
            yield
        finally:
            stop.set()
        pinging.result()
    assert most - before < growth


def eventually(what: Callable[[], object]) -> None:
    """Wait until something is true."""
    ends = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < ends, "did not happen in time"
        time.sleep(0.02)


def status_of(call: Callable[[], object]) -> grpc.StatusCode:
    """How a call ends."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code()  # type: ignore[no-any-return]
    return grpc.StatusCode.OK


def answer_to(peer: RawPeer, stream: int) -> bytes:
    """Everything of the headers that come back on one stream, until it ends; a line each."""
    got = b""
    for each in peer.frames():
        if each.stream == stream and each.kind in (1, 3):
            got += each.text
            if each.kind == 3 or each.flags & 1:
                return got
    return got


def is_answered(frame: Frame, stream: int) -> bool:
    """Whether a frame belongs to an answer on a stream."""
    return frame.stream == stream
