"""Each abuse against a real server: it survives, a good client stays served, and nothing is left over.

How quickly a good client is served meanwhile is measured by benchmarks/abuse.py; no test depends on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grpc
import psutil
import pytest

from remsvc_proto import RemSvc_pb2
from remsvc_proto.RemSvc_pb2_grpc import RemSvcStub
from tests.attacks.abuses import ABUSES, INSIDE
from tests.attacks.conftest import (
    AUTH,
    METADATA,
    TOKEN,
    answer_to,
    eventually,
    good_client,
    raw,
    status_of,
)
from tests.conftest import DEADLINE, Serve, ServerProcess

_OK = grpc.StatusCode.OK
# CANCELLED is gRPC's own answer while too many calls wait to be taken from it.
_LATER = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("REMSVC_FUZZ_SECONDS", "0.6"))


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module(f"{AUTH}[log]\nlevel = warning\n[limits]\nmax_connections = 300\n")


@pytest.mark.parametrize("inside", [False, True], ids=["stranger", "caller"])
@pytest.mark.parametrize("name", ABUSES)
@pytest.mark.timeout(60 + 10 * SECONDS)
def test_a_good_client_is_served_during_and_after(server: ServerProcess, name: str, inside: bool) -> None:
    if inside and name not in INSIDE:
        pytest.skip("a token makes no difference")
    process = psutil.Process(server.process.pid)
    command = [
        sys.executable,
        "-m",
        "tests.attacks.abuses",
        name,
        server.host,
        str(server.port),
        str(SECONDS),
    ]
    attacker = subprocess.Popen([*command, *([TOKEN] if inside else [])], cwd=ROOT, stdout=subprocess.PIPE)
    with good_client(server) as stub:
        answered = int(ping(stub))
        while attacker.poll() is None:
            answered += ping(stub)
        output, _ = attacker.communicate()
        assert attacker.returncode == 0
        assert int(output) > 0, "it did nothing"
        assert answered > 0
        eventually(lambda: ping(stub))
    eventually(lambda: established(process) <= 1)
    assert "Traceback" not in server.log
    assert process.memory_info().rss < 2e9


def test_a_method_whose_name_is_not_utf_8_ends_no_server(server: ServerProcess) -> None:
    """gRPC from 1.84.0 on shuts itself down: no server listens with it (tests/packaging/affected_grpc.py)."""
    with raw(server) as peer:
        peer.greet()
        peer.call(1, b"/\xa3/x", body=b"")
        answer_to(peer, 1)
    with good_client(server) as stub:
        eventually(lambda: ping(stub))


def ping(stub: RemSvcStub) -> bool:
    """Whether one is answered, sooner or later; being told to come back later is no failure."""
    request = RemSvc_pb2.PingMsg(seq=1)
    status = status_of(lambda: stub.Ping(request, metadata=METADATA, timeout=DEADLINE, wait_for_ready=True))
    assert status in (_OK, *_LATER)
    return status is _OK


def established(process: psutil.Process) -> int:
    return sum(entry.status == psutil.CONN_ESTABLISHED for entry in process.net_connections("tcp"))
