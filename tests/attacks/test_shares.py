"""No caller, and no crowd of strangers, takes what others need: turns, calls, connections, memory, time."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import psutil
import pytest

from remsvc_proto import RemSvc_pb2
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.attacks.abuses import COMMAND_PATH, PING_PATH, STREAM_PATH
from tests.attacks.conftest import (
    ATTACKER,
    ATTACKERS_TOKEN,
    AUTH,
    AUTH_BOTH,
    CREDENTIALS,
    METADATA,
    TOKEN,
    answer_to,
    eventually,
    good_client,
    greeted,
    raw,
)
from tests.attacks.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    SETTINGS,
    Header,
    RawPeer,
    call_headers,
    frame,
    header_block,
    message,
)
from tests.conftest import DEADLINE, Serve

pytestmark = pytest.mark.own_http2

_PING = RemSvc_pb2.PingMsg(seq=1)


def ended(peer: RawPeer) -> Iterator[bytes]:
    """What the headers say that end answers."""
    return (got.text for got in peer.frames() if got.kind == HEADERS and got.flags & END_STREAM)


@pytest.mark.parametrize("crowds", [None, ATTACKER], ids=["strangers", "another caller"])
def test_a_crowd_of_connections_that_call_at_one_moment_holds_up_no_caller(
    serve: Serve, crowds: Header | None
) -> None:
    """Each keeps to every limit: twenty calls in one packet. The good caller's packet is the last one."""
    server = serve(f"{AUTH_BOTH}[limits]\nmax_connections = 600\n[log]\nlevel = error\n")
    process = psutil.Process(server.process.pid)
    shown = ("x", "a" * 100) if crowds is None else crowds
    calls = b"".join(
        frame(HEADERS, END_HEADERS, stream, header_block(call_headers(PING_PATH, shown)))
        + frame(DATA, END_STREAM, stream, message(b""))
        for stream in range(3, 43, 2)
    )

    def worked() -> float:
        return process.cpu_times().user  # how long it takes says how busy the machine is

    with ExitStack() as stack:
        caller = stack.enter_context(greeted(server))
        caller.call(1, PING_PATH, CREDENTIALS, body=message(b""))
        answer_to(caller, 1)
        peers = [stack.enter_context(greeted(server)) for _ in range(400)]
        for peer in peers:
            peer.call(1, PING_PATH, shown, body=message(b""))
            answer_to(peer, 1)
        process.suspend()
        for peer in peers:
            peer.send(calls)
        caller.call(3, PING_PATH, CREDENTIALS, body=message(b""))
        before = worked()
        process.resume()
        assert b"grpc-status: 0\n" in answer_to(caller, 3)
        until_answered = worked() - before
        for peer in peers:
            assert len(list(itertools.islice(ended(peer), 20))) == 20
        assert until_answered < (worked() - before) / 2


def test_a_caller_cannot_take_all_calls_that_others_need(serve: Serve) -> None:
    server = serve(f"{AUTH_BOTH}[limits]\nmax_calls = 20\n")
    with greeted(server) as peer, good_client(server) as stub:
        for stream in range(1, 61, 2):
            peer.call(stream, STREAM_PATH, ATTACKER)
            peer.send(frame(DATA, 0, stream, message(RemSvc_pb2.RemCmdMsg(cmd="true").SerializeToString())))
        refused = list(itertools.islice(ended(peer), 12))
        assert all(b"calls in progress already, " in text for text in refused)
        assert stub.Ping(_PING, metadata=METADATA, timeout=DEADLINE).seq == 1


def test_a_caller_cannot_take_all_connections_that_others_need(serve: Serve) -> None:
    server = serve(f"{AUTH_BOTH}[limits]\nmax_connections = 20\n")
    with ExitStack() as stack:
        for _ in range(30):
            peer = stack.enter_context(raw(server))
            with suppress(OSError):
                peer.greet()
                peer.send(frame(SETTINGS, ACK, 0))
                peer.call(1, STREAM_PATH, ATTACKER)
                peer.send(frame(DATA, 0, 1, message(RemSvc_pb2.RemCmdMsg(cmd="true").SerializeToString())))
        with good_client(server) as stub:
            answer = stub.Ping(_PING, metadata=METADATA, timeout=DEADLINE, wait_for_ready=True)
        assert answer.seq == 1


def test_a_window_of_tiny_messages_costs_no_more_than_its_bytes(serve: Serve) -> None:
    server = serve(AUTH)
    process = psutil.Process(server.process.pid)
    tiny = message(b"\x08\x01") * 8_000  # 56,000 bytes
    with greeted(server) as peer:
        peer.call(1, PING_PATH, CREDENTIALS, body=message(b""))
        answer_to(peer, 1)
        before = process.memory_info().rss
        for stream in range(3, 203, 2):
            peer.call(stream, STREAM_PATH, CREDENTIALS)
            sleep = message(RemSvc_pb2.RemCmdMsg(cmd="sleep 1000").SerializeToString())
            peer.send(frame(DATA, 0, stream, sleep))
            for start in range(0, len(tiny), 14_000):
                peer.send(frame(DATA, 0, stream, tiny[start : start + 14_000]))
        with good_client(server) as stub:
            stub.Ping(_PING, metadata=METADATA, timeout=DEADLINE)
        # 5.6 MB were sent; as an object for each message they were 40.
        assert process.memory_info().rss - before < 25e6


def test_a_token_that_is_revoked_before_its_request_has_come_starts_nothing(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(token_line("other", ATTACKERS_TOKEN) + token_line("good", TOKEN))
    server = serve(f"[server]\nport = 0\ntoken_file = {tokens}\n")
    command = RemSvc_pb2.RemCmdMsg(cmd=f": > {tmp_path}/ran").SerializeToString()
    with greeted(server) as peer, good_client(server) as stub:
        peer.call(1, COMMAND_PATH, ATTACKER)
        stub.Ping(_PING, metadata=METADATA, timeout=DEADLINE)
        tokens.write_text(token_line("good", TOKEN))
        os.kill(server.process.pid, signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in server.log)
        peer.send(frame(DATA, END_STREAM, 1, message(command)))
        assert b"grpc-status: 16\n" in answer_to(peer, 1)
    assert not (tmp_path / "ran").exists()


def token_line(identity: str, token: str) -> str:
    from remsvc.server.identity.tokens import digest_of

    return f"{identity} = sha256:{digest_of(token).hex()}\n"


def test_a_stranger_who_keeps_calling_holds_up_no_shutdown(serve: Serve) -> None:
    server = serve("[server]\nport = 0\nshutdown_grace_ms = 100000\n[auth]\na = some-token-of-somebody\n")
    with greeted(server) as peer, greeted(server) as dripping:
        dripping.call(1, PING_PATH)
        dripping.send(frame(DATA, 0, 1, bytes(1000))[:500])
        server.process.terminate()
        with suppress(OSError):
            for stream in itertools.count(1, 2):
                peer.call(stream, PING_PATH)
                peer.discard()
                if server.process.poll() is not None:
                    break
        assert server.process.wait(DEADLINE) == 0


def test_a_refusal_that_repeats_what_was_sent_fits_into_the_trailers(serve: Serve) -> None:
    server = serve(AUTH)
    spec = jobs_pb2.JobSpec(shell_command="true", working_directory="no/" + "x" * 100_000)
    request = jobs_pb2.CreateJobRequest(request_id="one", spec=spec)
    with grpc.insecure_channel(server.target) as channel:
        create = channel.unary_unary("/remsvc.jobs.v1.JobService/CreateJob")
        with pytest.raises(grpc.RpcError) as caught:
            create(request.SerializeToString(), metadata=METADATA, timeout=DEADLINE)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(caught.value.details()) < 2000
