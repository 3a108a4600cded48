"""The whole server under hostile load: everything that is known to have filled its memory, at one time.

What it takes is measured as the system counts it, of the server's process, beside a good caller who is
served.
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from tests.attacks.abuses import PING_PATH
from tests.attacks.conftest import AUTH, METADATA, good_client, raw
from tests.attacks.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    SETTINGS,
    RawPeer,
    call_headers,
    frame,
    header_block,
    message,
)
from tests.conftest import DEADLINE, Serve, ServerProcess

pytestmark = pytest.mark.own_http2

MOST = 300 * 1024 * 1024
SECONDS = 10.0
ATTACKERS = [f"attacker{number}" for number in range(4)]
TOKENS = {name: f"a-token-of-{name}-0123456789" for name in ATTACKERS}
JOBS = "/remsvc.jobs.v1.JobService/"
_NO_WINDOW = struct.pack(">HI", 4, 0)
_WIDE = "\U0001f600"  # a character of which texts of this one are four times as large in memory


def metadata(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {TOKENS[name]}"),)


def spec(**fields: object) -> jobs_pb2.JobSpec:
    return jobs_pb2.JobSpec(**{"shell_command": "sleep 1000", **fields})  # type: ignore[arg-type]


def create(channel: grpc.Channel, name: str, made: jobs_pb2.JobSpec, request_id: str) -> str:
    """The job's id; empty where it was refused."""
    request = jobs_pb2.CreateJobRequest(request_id=request_id, spec=made)
    with suppress(grpc.RpcError):
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        return str(stub.CreateJob(request, metadata=metadata(name), timeout=DEADLINE).id)
    return ""


# The attacks: each does its worst until it is told to stop.


def deaf(server: ServerProcess, path: str, body: bytes, stop: threading.Event) -> None:
    """Calls whose answers nobody takes, on many connections of several identities."""
    with ExitStack() as stack:
        for name in itertools.cycle(ATTACKERS):
            headers = header_block(call_headers(path, *metadata(name)))
            peer = stack.enter_context(raw(server))
            with suppress(OSError):
                peer.greet(_NO_WINDOW)
                peer.send(frame(SETTINGS, ACK, 0))
                begin_many(peer, headers, body, stop)
            if stop.wait(0.05):
                return


def begin_many(peer: RawPeer, headers: bytes, body: bytes, stop: threading.Event) -> None:
    pieces = [body[start : start + 16_000] for start in range(0, len(body), 16_000)]
    for stream in range(1, 201, 2):
        if stop.is_set():
            return
        *first, last = pieces
        peer.send(
            frame(HEADERS, END_HEADERS, stream, headers),
            *(frame(DATA, 0, stream, piece) for piece in first),
            frame(DATA, END_STREAM, stream, last),
        )
        if stream == 1:
            time.sleep(0.2)  # then it is known who calls, and there is a wide window


def unread_pings(server: ServerProcess, stop: threading.Event) -> None:
    content = RemSvc_pb2.PingMsg(data=bytes(60_000)).SerializeToString()
    deaf(server, PING_PATH, message(content), stop)


def unread_lists(server: ServerProcess, stop: threading.Event) -> None:
    content = jobs_pb2.ListJobsRequest(page_size=1000).SerializeToString()
    deaf(server, JOBS + "ListJobs", message(content), stop)


def over_and_over(work: Callable[[grpc.Channel, str, int], object]) -> Callable[..., None]:
    """An attack by eight clients, each of which does ``work`` again and again."""

    def attack(server: ServerProcess, stop: threading.Event) -> None:
        def one(number: int) -> None:
            options = [("grpc.use_local_subchannel_pool", 1)]
            name = ATTACKERS[number % len(ATTACKERS)]
            with grpc.insecure_channel(server.target, options=options) as channel:
                for count in itertools.count():
                    if stop.is_set():
                        return
                    with suppress(grpc.RpcError):
                        work(channel, name, 1000 * number + count)

        with ThreadPoolExecutor(8) as executor:
            list(executor.map(one, range(8)))

    return attack


def get_large_jobs(channel: grpc.Channel, name: str, number: int) -> None:
    stub = jobs_pb2_grpc.JobServiceStub(channel)
    listed = stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=5), metadata=metadata(name), timeout=DEADLINE)
    for job in listed.jobs:
        stub.GetJob(jobs_pb2.GetJobRequest(id=job.id), metadata=metadata(name), timeout=DEADLINE)


def queue_large_jobs(channel: grpc.Channel, name: str, number: int) -> None:
    environment = {f"V{each}": _WIDE + "x" * 50_000 for each in range(20)}
    for way in (
        spec(environment=environment),
        spec(argv=jobs_pb2.Argv(args=["/bin/sleep", *(["é" * 30] * 32_000)])),
        spec(environment={f"{each}": "" for each in range(4096)}, source=_WIDE * 1000, user="x" * 256),
        spec(standard_input=bytes(1_000_000)),
    ):
        create(channel, name, way, f"{number}-{way.ByteSize()}")


def denied_commands(channel: grpc.Channel, name: str, number: int) -> None:
    request = RemSvc_pb2.RemCmdMsg(cmd="forbidden " + "x" * 120_000, src="\x01" * 4096)
    RemSvc_pb2_grpc.RemSvcStub(channel).RemCmd(request, metadata=metadata(name), timeout=DEADLINE)


def large_messages(channel: grpc.Channel, name: str, number: int) -> None:
    """That are no request, and as long as one may be."""
    create = channel.unary_unary(JOBS + "CreateJob")
    create(b"\x12\xfc\xff\xff\x01\x12" + b"\x0a\x00" * 2_000_000, metadata=metadata(name), timeout=DEADLINE)


def compressed_health(channel: grpc.Channel, name: str, number: int) -> None:
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    bomb = health_pb2.HealthCheckRequest(service="x" * 15_000_000).SerializeToString()
    check(bomb, timeout=DEADLINE, compression=grpc.Compression.Gzip)


def large_commands_that_run(server: ServerProcess, stop: threading.Event) -> None:
    request = RemSvc_pb2.RemCmdMsg(cmd="exec sleep 1000 #" + _WIDE + "x" * 120_000)
    with grpc.insecure_channel(server.target) as channel:
        stub = RemSvc_pb2_grpc.RemSvcStub(channel)
        held = [
            stub.RemCmd.future(request, metadata=metadata(ATTACKERS[number % 4])) for number in range(200)
        ]
        stop.wait()
        for call in held:
            call.cancel()


ATTACKS: dict[str, Callable[[ServerProcess, threading.Event], None]] = {
    "unread pings": unread_pings,
    "unread lists": unread_lists,
    "large jobs asked for": over_and_over(get_large_jobs),
    "large jobs queued": over_and_over(queue_large_jobs),
    "large commands that run": large_commands_that_run,
    "denied commands": over_and_over(denied_commands),
    "large messages": over_and_over(large_messages),
    "compressed health": over_and_over(compressed_health),
}


# One by one where REMSVC_FUZZ_SECONDS is set (make fuzz): to see which of them takes what.
WAYS = {"all at once": list(ATTACKS)}
if "REMSVC_FUZZ_SECONDS" in os.environ:
    WAYS |= {name: [name] for name in ATTACKS}


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> ServerProcess:
    tokens = "".join(f"{name} = {token}\n" for name, token in TOKENS.items())
    running = serve(
        f"{AUTH}{tokens}[audit]\nfile = {tmp_path}/audit.jsonl\n[denylist]\n01 = ^forbidden\n"
        "[jobs]\nmax_running = 8\n[log]\nlevel = warning\n",
        "--transport",
        "http2",
    )
    with grpc.insecure_channel(running.target) as channel:
        # What is listed and asked for: jobs with as many labels as there may be, which have ended.
        labels = {f"{number:03}" + _WIDE * 60: _WIDE * 255 for number in range(32)}
        for number in range(60):
            made = spec(shell_command="true", labels=labels, environment={"V": "x" * 120_000})
            assert create(channel, ATTACKERS[number % 4], made, f"listed {number}")
    return running


@pytest.mark.timeout(300)
@pytest.mark.parametrize("names", WAYS.values(), ids=WAYS)
def test_the_server_stays_within_its_memory(server: ServerProcess, names: list[str]) -> None:
    process = psutil.Process(server.process.pid)
    idle = most = process.memory_info().rss
    stop = threading.Event()
    answered = 0
    with good_client(server) as stub, ThreadPoolExecutor(len(names)) as executor:
        attacks = [executor.submit(ATTACKS[name], server, stop) for name in names]
        ends = time.monotonic() + SECONDS
        try:
            while time.monotonic() < ends:
                stub.Ping(RemSvc_pb2.PingMsg(), metadata=METADATA, timeout=DEADLINE)
                request = RemSvc_pb2.RemCmdMsg(cmd="true")
                assert stub.RemCmd(request, metadata=METADATA, timeout=DEADLINE).rc == 0
                answered += 1
                most = max(most, process.memory_info().rss)
        finally:
            stop.set()
        for attack in attacks:
            attack.result(DEADLINE)
    print(f"{names}: {idle / 1e6:.0f} MB idle, {(most - idle) / 1e6:.0f} MB more, {answered} answers")
    assert answered
    assert most - idle < MOST
    assert "Traceback" not in server.log
