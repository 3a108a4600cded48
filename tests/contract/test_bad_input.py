"""Requests that cannot be served: each gets a clear error, and the server goes on."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from . import wire
from .client import DEADLINE, Client, command, refused
from .commands import COMMANDS, posix_only
from .waiting import wait_until

LONGEST = 131_071
"""Bytes of the longest single argument that Linux starts a program with."""


@pytest.fixture(autouse=True)
def _server_goes_on(client: Client):
    yield
    assert client.run(COMMANDS.echo("still here")).out.strip() == "still here"


@pytest.fixture(params=["RemCmd", "RemCmdStrm"])
def run(request: pytest.FixtureRequest, client: Client):
    """Runs one command, by a call of its own or over a stream."""

    def over_a_stream(cmd: str, **fields: Any) -> Any:
        (answer,) = client.stream([command(cmd, **fields)])
        return answer

    return client.run if request.param == "RemCmd" else over_a_stream


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n \r", "\u00a0\u2003"], ids=["empty", "space", "whitespace", "unicode"]
)
def test_a_blank_command_is_refused(run, text: str) -> None:
    """INVALID_ARGUMENT, as are a blank command ..."""
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        run(text)


@pytest.mark.parametrize("text", ["\0", "echo a\0b", "echo a\0", "\0echo a"])
def test_a_nul_is_refused(run, text: str) -> None:
    """INVALID_ARGUMENT, as are ... a NUL in it"""
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        run(text)


@posix_only
@pytest.mark.parametrize("filler", ["x", "é"])
def test_a_command_longer_than_the_system_can_start_is_refused(run, filler: str) -> None:
    """INVALID_ARGUMENT, as are ... one longer than the system can start: one byte too long."""
    longest = ": " + filler * ((LONGEST - 2) // len(filler.encode()))
    longest += "x" * (LONGEST - len(longest.encode()))
    assert run(longest).rc == 0
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        run(longest + "x")


def test_a_command_of_megabytes_is_refused(run) -> None:
    """INVALID_ARGUMENT, as are ... one longer than the system can start"""
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        run("echo " + "x" * 3_000_000)


def test_a_message_too_large_for_grpc_is_refused(run) -> None:
    """Messages beyond gRPC's own limit (4 MiB) never reach the service."""
    with pytest.raises(grpc.RpcError) as caught:
        run("echo " + "x" * 20_000_000)
    assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("cmdtyp", [2, -1, 99])
def test_an_unknown_type_is_refused_naming_it(run, cmdtyp: int) -> None:
    """any other value: INVALID_ARGUMENT"""
    with pytest.raises(grpc.RpcError) as caught:
        run(COMMANDS.echo("x"), cmdtyp=cmdtyp)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(cmdtyp) in caught.value.details()


def test_a_wrong_hash_is_refused(run) -> None:
    """mismatch is INVALID_ARGUMENT, hash mismatch: command integrity check failed"""
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "hash mismatch: command integrity check failed"):
        run(COMMANDS.echo("x"), hsh="deadbeef")


@pytest.mark.parametrize("character", ["\n", "\r", "\x1b[31m", "\x07"])
def test_control_characters_in_src_forge_no_log_entry(shared_server, client: Client, character: str) -> None:
    """src goes into the log entries of that command: as one line of plain text."""
    client.run("true", src=f"before{character}INFO forged-entry{ord(character[0])}")
    wait_until(lambda: f"forged-entry{ord(character[0])}" in shared_server.log, "the log entry")
    lines = [line for line in shared_server.log.split("\n") if f"forged-entry{ord(character[0])}" in line]
    assert all("before" in line and character not in line for line in lines)


@posix_only
@pytest.mark.parametrize("name", ["a\0b", "nobody\n"])
def test_a_user_name_that_cannot_be_one_runs_nothing(client: Client, name: str) -> None:
    """unknown user: rc 1, or a refusal; nothing runs."""
    call = client.start("echo ran", cmdusr=name)
    if call.exception() is None:
        assert (call.result().rc, call.result().out) == (1, "")
    else:
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT


# --- bytes that are not a request ---


def raw_call(client: Client, name: str, data: bytes) -> bytes:
    method = wire.METHODS[name]
    if method.streaming:
        (answer,) = client.channel.stream_stream(method.path(name))(iter([data]), timeout=DEADLINE)
        return answer
    return client.channel.unary_unary(method.path(name))(data, timeout=DEADLINE)


NOT_REQUESTS = {
    "invalid UTF-8": b"\x0a\x06echo \xff",
    "cut short": b"\x0a\x20echo",
    "no protobuf": b"\xff\xff\xff\xff",
    "field 0": b"\x00\x01",
}


@pytest.mark.parametrize("method", ["RemCmd", "RemCmdStrm"])
@pytest.mark.parametrize("data", NOT_REQUESTS.values(), ids=NOT_REQUESTS.keys())
def test_bytes_that_are_not_a_request_are_refused(client: Client, method: str, data: bytes) -> None:
    """The call fails, by gRPC's own status for it or ours; nothing runs."""
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(client, method, data)
    assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("method", ["RemCmd", "RemCmdStrm"])
def test_unknown_fields_are_ignored(client: Client, method: str) -> None:
    """proto3: a newer client's additional fields do no harm."""
    request = command(COMMANDS.echo("x"), tid=9).SerializeToString() + b"\xfa\x07\x03new"  # field 127
    answer = wire.message("RemResMsg").FromString(raw_call(client, method, request))
    assert (answer.rc, answer.tid, answer.out.strip()) == (0, 9, "x")
