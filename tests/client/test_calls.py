"""Calls that go well, and answers that are not as they should be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import grpc
import pytest

from remsvc.client import AsyncClient, Client, CommandResult, ConnectionOptions
from remsvc.command import Command, CommandType, crc32hex
from remsvc.errors import InvalidCommandError, MissingResultsError, ProtocolError, RemSvcError
from remsvc_proto import RemSvc_pb2

from .conftest import Connect
from .scripted_server import ScriptedServer, answer, command, succeed

Scripted = Callable[..., ScriptedServer]


def test_a_ping_is_echoed_and_timed(scripted: Scripted, connect: Connect) -> None:
    with connect(ConnectionOptions(scripted().target)) as client:
        pong = client.ping(b"\x00data", seq=7)
    assert (pong.seq, pong.data) == (7, b"\x00data")
    assert pong.time > 1_600_000_000_000
    assert 0 < pong.round_trip < 30


def test_the_status_is_read(scripted: Scripted, connect: Connect) -> None:
    def status(request: bytes, context: grpc.ServicerContext) -> bytes:
        return RemSvc_pb2.StatusMsg(rc=0, msg="state=OK uptime=1s commands=2").SerializeToString()

    with connect(ConnectionOptions(scripted(status=status).target)) as client:
        answered = client.status()
    assert (answered.rc, answered.msg) == (0, "state=OK uptime=1s commands=2")


@pytest.mark.parametrize("text", ["x" * 131_072, "é" * 65_536])
def test_nothing_of_a_list_runs_where_one_command_is_too_long_to_be_started(
    scripted: Scripted, connect: Connect, text: str
) -> None:
    seen: list[bytes] = []

    def run(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            seen.append(request)
            yield answer(tid=command(request).tid)

    with connect(ConnectionOptions(scripted(stream=run).target)) as client:
        with pytest.raises(InvalidCommandError, match=r"command 2: cmd: expected at most 131071 bytes"):
            list(client.run_many([Command("true"), Command(text)]))
        assert seen == []
        assert len(list(client.run_many([Command("true"), Command(text[:-1])]))) == 2


def test_a_command_arrives_whole_and_its_result_is_typed(scripted: Scripted, connect: Connect) -> None:
    seen = []

    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(command(request))
        return answer(rc=-5, tid=9, out="o\n", err="é", hsh=seen[-1].hsh)

    text = 'echo "grün"\n'
    with connect(ConnectionOptions(scripted(run=run).target)) as client:
        result = client.run(Command(text, CommandType.POWERSHELL, "ann", "a test"), tid=9)
    message = RemSvc_pb2.RemCmdMsg(cmd=text, cmdtyp=1, cmdusr="ann", tid=9, src="a test", hsh=crc32hex(text))
    assert seen == [message]
    assert result == CommandResult(rc=-5, tid=9, out="o\n", err="é", hsh=crc32hex(text), lossy=False)


def test_many_commands_are_numbered_and_answered_in_order(scripted: Scripted, connect: Connect) -> None:
    commands = [Command(f"echo {number}") for number in range(1, 10_001)]
    with connect(ConnectionOptions(scripted(stream=succeed).target)) as client:
        results = list(client.run_many(commands))
    assert [result.tid for result in results] == list(range(1, 10_001))
    assert [result.out for result in results] == [command.cmd for command in commands]


def test_no_commands_need_no_server(connect: Connect) -> None:
    with connect(ConnectionOptions("127.0.0.1:1")) as client:
        assert list(client.run_many([])) == []


def test_answers_are_read_while_commands_are_written(scripted: Scripted, connect: Connect) -> None:
    # More than all buffers on the way hold, in both directions: reading after writing would lock up.
    commands = [Command("x" * 50_000)] * 1_000
    with connect(ConnectionOptions(scripted(stream=succeed).target)) as client:
        assert sum(len(result.out) for result in client.run_many(commands)) == 50_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
@pytest.mark.parametrize("flavour", ["AsyncClient", "Client"])
def test_memory_does_not_grow_with_the_answers(scripted: Scripted, flavour: str, transport: str) -> None:
    def big(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield answer(tid=command(request).tid, out="x" * 500_000)

    script = f"""
import asyncio, re
from remsvc.client import {flavour}, ConnectionOptions
from remsvc.command import Command
options = ConnectionOptions({scripted(stream=big).target!r}, transport={transport!r})
commands = [Command("true")] * 1_000
async def asynchronous():
    async with {flavour}(options) as client:
        return [len(result.out) async for result in client.run_many(commands)]
def blocking():
    with {flavour}(options) as client:
        return [len(result.out) for result in client.run_many(commands)]
lengths = asyncio.run(asynchronous()) if {flavour!r} == "AsyncClient" else blocking()
assert lengths == [500_000] * 1_000
# Not ru_maxrss: that starts with the peak of the process that forked this one.
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 250_000, "kilobytes, of which Python and gRPC take 60,000"


def test_text_that_is_not_utf8_is_kept_and_marked(scripted: Scripted, connect: Connect) -> None:
    def spoil(good: bytes) -> bytes:
        return good.replace(b"??", b"\xff\xfe")

    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        return spoil(answer(rc=3, tid=1, out="a??b", err="fine é", hsh="12345678"))

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield spoil(answer(rc=4, tid=command(request).tid, out="good", err="??"))

    with connect(ConnectionOptions(scripted(run=run, stream=stream).target)) as client:
        assert client.run(Command("x")) == CommandResult(
            3, 1, "a\ufffd\ufffdb", "fine é", "12345678", lossy=True
        )
        assert list(client.run_many([Command("x"), Command("y")])) == [
            CommandResult(4, 1, "good", "\ufffd\ufffd", "", lossy=True),
            CommandResult(4, 2, "good", "\ufffd\ufffd", "", lossy=True),
        ]


@pytest.mark.parametrize("count", [1, 3, 500])
@pytest.mark.parametrize("answered", [0, 1, 2])
def test_missing_answers_are_named(scripted: Scripted, connect: Connect, count: int, answered: int) -> None:
    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for _, request in zip(range(answered), requests, strict=False):
            yield answer(tid=command(request).tid)

    missing = tuple(range(answered + 1, count + 1))
    with connect(ConnectionOptions(scripted(stream=stream).target)) as client:
        results = client.run_many([Command("x" * 1000)] * count)
        assert [next(results).tid for _ in range(min(answered, count))] == list(
            range(1, min(answered, count) + 1)
        )
        with pytest.raises(MissingResultsError if missing else StopIteration) as caught:
            next(results)
        if missing:
            assert caught.value.tids == missing


@pytest.mark.parametrize(
    ("tids", "message"),
    [
        ([1, 3], "not sent: tid 3"),
        ([0], "not sent: tid 0"),
        ([-1], "not sent: tid -1"),
        ([2, 2], "twice: tid 2"),
        ([2**31 - 1], "not sent: tid 2147483647"),
    ],
)
def test_answers_to_no_open_command_are_errors(
    scripted: Scripted, connect: Connect, tids: list[int], message: str
) -> None:
    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for tid in tids:
            yield answer(tid=tid)

    with (
        connect(ConnectionOptions(scripted(stream=stream).target)) as client,
        pytest.raises(ProtocolError, match=message),
    ):
        list(client.run_many([Command("x"), Command("y")]))


def test_answers_may_come_in_another_order(scripted: Scripted, connect: Connect) -> None:
    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in reversed(list(requests)):
            yield answer(tid=command(request).tid)

    with connect(ConnectionOptions(scripted(stream=stream).target)) as client:
        assert [result.tid for result in client.run_many([Command("x")] * 3)] == [3, 2, 1]


def test_an_answer_that_cannot_be_read_is_an_error(scripted: Scripted, connect: Connect) -> None:
    def garbage(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"\xff\xff\xff"

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"\xff\xff\xff"

    server = scripted(ping=garbage, status=garbage, run=garbage, stream=stream)
    with connect(ConnectionOptions(server.target)) as client:
        for call in (
            client.ping,
            client.status,
            lambda: client.run(Command("x")),
            lambda: list(client.run_many([Command("x")])),
        ):
            with pytest.raises(ProtocolError, match="cannot be read"):
                call()


def test_invalid_commands_are_refused_before_anything_is_sent(connect: Connect) -> None:
    with connect(ConnectionOptions("127.0.0.1:1")) as client:
        with pytest.raises(InvalidCommandError, match="cmd must not be blank"):
            client.run(Command(" \t"))
        with pytest.raises(InvalidCommandError, match="command 2: cmd must not contain a NUL"):
            list(client.run_many([Command("x"), Command("a\0b")]))


async def test_a_closed_client_says_so(scripted: Scripted) -> None:
    options = ConnectionOptions(scripted().target)
    client = Client(options)
    client.ping()
    client.close()
    client.close()
    with pytest.raises(RemSvcError, match="the client is closed"):
        client.ping()
    async_client = AsyncClient(options)
    await async_client.ping()
    await async_client.close()
    await async_client.close()
    with pytest.raises(RemSvcError, match="the client is closed"):
        await async_client.ping()


def test_a_server_with_only_the_command_methods_will_do(scripted: Scripted, connect: Connect) -> None:
    server = scripted(ping=None, stream=succeed)
    with connect(ConnectionOptions(server.target)) as client:
        assert [result.tid for result in client.run_many([Command("x")])] == [1]
