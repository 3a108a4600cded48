"""Use an installed wheel against a real server: ``python -W error round_trip.py PYTHON``.

Runs in an environment that holds the wheel's base install and one pair of grpcio and protobuf.
``PYTHON`` is the interpreter that runs the server: one whose environment has ``remsvc serve``.
Imports nothing of the test suite and needs no pytest.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from concurrent import futures
from importlib.metadata import version

import google.protobuf
import grpc

from remsvc.client import AsyncClient, Client
from remsvc.client.options import ConnectionOptions
from remsvc.command import Command, crc32hex
from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc

COMMANDS = [Command("echo one"), Command("echo two >&2; exit 3")]
EXPECTED = [(0, 1, "one\n", ""), (3, 2, "", "two\n")]


def main() -> None:
    with tempfile.TemporaryDirectory() as state:
        flags = ["--port", "0", "--state-dir", state, "--log-level", "warning"]
        serve = [sys.argv[1], "-m", "remsvc", "serve", *flags]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                line = server.stdout.readline()
                assert line.startswith("listening on "), f"the server did not start: {line!r}"
                target = line.removeprefix("listening on ").strip()
                check_stubs(target)
                check_client(target)
                asyncio.run(check_async_client(target))
            finally:
                server.terminate()
        assert server.returncode == 0, f"the server ended with code {server.returncode}"
    check_servicer()
    print(
        f"round trip with wheel {version('airflow-provider-remsvc')},"
        f" Python {sys.version.split()[0]}, grpcio {grpc.__version__}, protobuf {google.protobuf.__version__}"
    )


def check_stubs(target: str) -> None:
    """The generated modules, as DAGs and programs in the field use them."""
    requests = [
        RemSvc_pb2.RemCmdMsg(cmd=command.cmd, tid=tid, hsh=crc32hex(command.cmd))
        for tid, command in enumerate(COMMANDS, 1)
    ]
    with grpc.insecure_channel(target) as channel:
        stub = RemSvc_pb2_grpc.RemSvcStub(channel)
        pong = stub.Ping(RemSvc_pb2.PingMsg(seq=7, time=1 << 40, data=b"\0\xff"), timeout=10)
        assert (pong.seq, pong.time, pong.data) == (7, 1 << 40, b"\0\xff")
        answers = list(stub.RemCmdStrm(iter(requests), timeout=30))
    assert [(a.rc, a.tid, a.out, a.err) for a in answers] == EXPECTED
    assert [a.hsh for a in answers] == [r.hsh for r in requests]


def check_client(target: str) -> None:
    with Client(ConnectionOptions(target)) as client:
        assert client.ping(b"data").data == b"data"
        assert client.status().msg.startswith("state=OK")
        assert client.run(COMMANDS[0]).out == "one\n"
        results = list(client.run_many(COMMANDS))
    assert [(r.rc, r.tid, r.out, r.err) for r in results] == EXPECTED


async def check_async_client(target: str) -> None:
    async with AsyncClient(ConnectionOptions(target)) as client:
        assert (await client.ping(b"data")).data == b"data"
        results = [result async for result in client.run_many(COMMANDS)]
    assert [(r.rc, r.tid, r.out, r.err) for r in results] == EXPECTED


def check_servicer() -> None:
    """The server's half of the generated modules."""

    class Echo(RemSvc_pb2_grpc.RemSvcServicer):
        def RemCmd(self, request, context):
            return RemSvc_pb2.RemResMsg(tid=request.tid, out=request.cmd)

    server = grpc.server(futures.ThreadPoolExecutor(1))
    RemSvc_pb2_grpc.add_RemSvcServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = RemSvc_pb2_grpc.RemSvcStub(channel)
            assert stub.RemCmd(RemSvc_pb2.RemCmdMsg(cmd="text", tid=5), timeout=10).out == "text"
            unimplemented = stub.Ping.future(RemSvc_pb2.PingMsg(), timeout=10)
            assert unimplemented.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        server.stop(None).wait()


if __name__ == "__main__":
    main()
