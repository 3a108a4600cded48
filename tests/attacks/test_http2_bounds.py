"""What calls, messages and answers of one peer may cost the server, and that nobody else pays for it."""

from __future__ import annotations

import struct
import time
from contextlib import ExitStack, suppress

import psutil
import pytest

from remsvc_proto import RemSvc_pb2
from tests.attacks.abuses import COMMAND_PATH, PING_PATH, STREAM_PATH, WATCH_PATH
from tests.attacks.conftest import (
    ATTACKER,
    AUTH,
    AUTH_BOTH,
    CREDENTIALS,
    METADATA,
    a_good_client_is_served,
    answer_to,
    eventually,
    good_client,
    greeted,
    raw,
)
from tests.attacks.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawPeer,
    call_headers,
    frame,
    header_block,
    message,
    settings,
    window_update,
)
from tests.conftest import DEADLINE, Serve, ServerProcess

pytestmark = pytest.mark.own_http2

_PIECE = 16_000


def test_a_call_on_a_connection_that_is_closed_for_being_idle_is_told_so(serve: Serve) -> None:
    """Not that the server is shutting down: on another connection it is served."""
    server = serve(f"{AUTH}[limits]\nconnection_idle_ms = 200\nanswer_timeout_ms = 600000\n")
    with raw(server) as peer:
        no_window = struct.pack(">HI", 4, 0)
        peer.greet(no_window)
        peer.send(frame(SETTINGS, ACK, 0))
        peer.call(1, PING_PATH, CREDENTIALS, body=message(b""))  # nothing of its answer may be sent
        assert any(got.kind == GOAWAY for got in peer.frames())
        peer.call(3, PING_PATH, CREDENTIALS, body=message(b""))
        assert b"this connection is being closed" in answer_to(peer, 3)


def test_a_caller_may_send_many_small_commands_before_the_first_has_ended(serve: Serve) -> None:
    """As many as his windows hold, each in a frame of its own."""
    server = serve(AUTH)
    with greeted(server) as peer:
        for stream in (1, 3):
            peer.call(stream, STREAM_PATH, CREDENTIALS)
            long = RemSvc_pb2.RemCmdMsg(cmd="sleep 1000")
            peer.send(frame(DATA, 0, stream, message(long.SerializeToString())))
            short = frame(DATA, 0, stream, message(RemSvc_pb2.RemCmdMsg(cmd="true").SerializeToString()))
            for _ in range(25):
                peer.send(short * 200)
        peer.call(5, PING_PATH, CREDENTIALS, body=message(b""))
        assert b"grpc-status: 0\n" in answer_to(peer, 5)


def ping_of(size: int) -> bytes:
    """The message of a ping with so much data."""
    return message(RemSvc_pb2.PingMsg(data=bytes(size)).SerializeToString())


def pieces(stream: int, body: bytes) -> list[bytes]:
    """A request's data in frames of a permitted length, whatever its window is."""
    return [frame(DATA, 0, stream, body[start : start + _PIECE]) for start in range(0, len(body), _PIECE)]


class Upload:
    """A request that is sent as fast as the window of its stream permits.

    Attributes:
        answers: how many frames with data of its answer have come.
        ended: whether its answer has ended.
    """

    def __init__(self, peer: RawPeer, stream: int) -> None:
        self._peer = peer
        self._stream = stream
        self._window = 65_535
        self._frames = peer.frames()
        self.answers = 0
        self.ended = False

    def send(self, body: bytes, *, end: bool = False) -> bool:
        """Send all of it; False where the call has ended before."""
        while body and not self.ended:
            piece, body = body[:_PIECE], body[_PIECE:]
            while self._window < len(piece) and not self.ended:
                self.look()
            self._peer.send(frame(DATA, END_STREAM if end and not body else 0, self._stream, piece))
            self._window -= len(piece)
        return not self.ended

    def look(self) -> None:
        """Take in the next frame that comes. Raises ``ConnectionError`` where none will."""
        got = next(self._frames, None)
        if got is None:
            raise ConnectionError("closed by the server")
        if got.stream != self._stream:
            return
        if got.kind == WINDOW_UPDATE:
            self._window += int.from_bytes(got.payload, "big")
        elif got.kind == RST_STREAM or got.flags & END_STREAM:
            self.ended = True
        elif got.kind == DATA:
            self.answers += 1


# Calls


def test_calls_that_the_server_is_made_to_reset_count_until_they_have_ended(serve: Serve) -> None:
    """Otherwise each of them makes room for one more command (CVE-2025-8671)."""
    most = 5
    server = serve(f"{AUTH}[limits]\nmax_calls = {most}\n")
    command = message(RemSvc_pb2.RemCmdMsg(cmd="exec sleep 1000").SerializeToString())
    seen = 0
    with greeted(server) as peer:
        for first in range(1, 400, 40):
            streams = range(first, first + 40, 2)
            for stream in streams:
                peer.call(stream, COMMAND_PATH, CREDENTIALS)
                peer.send(frame(DATA, 0, stream, command))
            eventually(lambda: len(sleeping(server)) >= most)
            peer.send(*(frame(HEADERS, END_HEADERS | END_STREAM, s, b"\x10\x01a\x01\0") for s in streams))
            for _ in range(20):
                seen = max(seen, len(sleeping(server)))
            peer.discard()
    assert seen <= most
    eventually(lambda: not sleeping(server))
    with good_client(server) as stub:
        assert stub.Ping(RemSvc_pb2.PingMsg(seq=3), metadata=METADATA, timeout=DEADLINE).seq == 3


def sleeping(server: ServerProcess) -> list[psutil.Process]:
    """The commands that run."""
    found = []
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[:2] == ["sleep", "1000"]:
                found.append(process)
    return found


# Answers


def test_a_thousand_answers_that_nobody_takes(serve: Serve) -> None:
    server = serve(f"{AUTH_BOTH}[limits]\nmax_unsent_bytes_total = 16777216\nmax_unread_bytes = 16777216\n")
    body = ping_of(800_000)
    with a_good_client_is_served(server, 160e6), raw(server) as peer:
        peer.greet(settings((4, 0))[9:])
        peer.send(frame(SETTINGS, ACK, 0))
        with suppress(OSError):  # the server may have had enough
            for stream in range(1, 2001, 2):
                peer.call(stream, PING_PATH, ATTACKER)
                Upload(peer, stream).send(body, end=True)


def test_who_takes_nothing_from_his_socket_is_let_go(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nanswer_timeout_ms = 1000\nhandshake_timeout_ms = 60000\n")
    with greeted(server) as peer:
        peer.send(window_update(0, 2**30))
        peer.socket.settimeout(0.3)
        body = ping_of(60_000)
        with suppress(OSError):  # it takes no more, since its answers are not taken
            for stream in range(1, 4000, 2):
                peer.call(stream, PING_PATH, CREDENTIALS)
                peer.send(*pieces(stream, body))
        eventually(lambda: not established(server))
        peer.socket.settimeout(DEADLINE)


def established(server: ServerProcess) -> int:
    connections = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in connections)


def test_a_call_that_has_ended_loses_an_answer_that_is_not_taken(serve: Serve) -> None:
    server = serve(f"{AUTH}[limits]\nanswer_timeout_ms = 1000\n")
    with raw(server) as peer:
        peer.greet(settings((4, 0))[9:])
        peer.send(frame(SETTINGS, ACK, 0))
        peer.call(1, PING_PATH, CREDENTIALS, body=ping_of(1000))
        resets = (got.payload for got in peer.frames() if got.kind == RST_STREAM and got.stream == 1)
        assert next(resets) == b"\0\0\0\x08"


def test_a_call_that_has_ended_is_let_go_of_whatever_is_half_sent(serve: Serve) -> None:
    server = serve(AUTH)
    with greeted(server) as peer:
        peer.call(1, STREAM_PATH, CREDENTIALS)
        peer.call(3, PING_PATH)  # refused, and its request never ends
        peer.send(frame(DATA, 0, 1, bytes(1000))[:500])
        assert any(got.kind == RST_STREAM and got.stream == 3 for got in peer.frames())


# Messages


def test_long_messages_hit_whoever_sends_most(serve: Serve) -> None:
    server = serve(f"{AUTH_BOTH}[limits]\nmax_unread_bytes = 4194304\nmax_message_bytes = 16777216\n")
    with raw(server) as good, greeted(server) as peer:
        good.greet(settings((4, 2**24))[9:])
        good.send(frame(SETTINGS, ACK, 0), window_update(0, 2**24))
        body = ping_of(1_000_000)
        good.call(1, PING_PATH, CREDENTIALS)
        assert Upload(good, 1).send(body[:-1])
        with a_good_client_is_served(server, 64e6):
            for stream in range(1, 41, 2):
                peer.call(stream, PING_PATH, ATTACKER)
                Upload(peer, stream).send(body[:-1])
        good.send(frame(DATA, END_STREAM, 1, body[-1:]))
        assert b"grpc-status: 0" in answer_to(good, 1)


def test_a_message_that_is_read_makes_room_for_no_more_than_itself(serve: Serve) -> None:
    """The memory stays within its bound, whether the caller is held back or loses his call."""
    server = serve(f"{AUTH_BOTH}[limits]\nmax_unread_bytes = 4194304\nmax_message_bytes = 2097152\n")
    # What nobody knows of a message is not looked at, and as long as one likes: here the field 100.
    padding = b"\xa2\x06\xc0\x84\x3d" + bytes(1_000_000)
    long = message(RemSvc_pb2.RemCmdMsg(cmd="sleep 0.03").SerializeToString() + padding)
    with a_good_client_is_served(server, 40e6), greeted(server) as peer:
        peer.call(1, STREAM_PATH, ATTACKER)
        upload = Upload(peer, 1)
        for number in range(60):
            if not upload.send(long * 3):
                break
            while upload.answers <= number and not upload.ended:
                upload.look()


def test_data_of_strangers_is_bounded_by_one_window(serve: Serve) -> None:
    server = serve(AUTH)
    body = ping_of(60_000)
    with a_good_client_is_served(server, 24e6), ExitStack() as stack:
        for _ in range(10):
            peer = stack.enter_context(greeted(server))
            with suppress(OSError):
                for stream in range(1, 401, 2):
                    peer.call(stream, WATCH_PATH)
                    peer.send(*pieces(stream, body[:-1]))


# What carries nothing


def test_a_million_data_frames_of_one_byte(serve: Serve) -> None:
    server = serve(AUTH_BOTH)
    with a_good_client_is_served(server, 64e6), greeted(server) as peer, suppress(OSError):
        peer.call(1, STREAM_PATH, ATTACKER)
        peer.send(frame(DATA, 0, 1, message(claimed=1_000_000)))
        for _ in range(1000):
            peer.send(frame(DATA, 0, 1, b"x") * 1000)
            peer.discard()
        peer.wait_closed()


def test_half_a_megabyte_of_empty_headers(serve: Serve) -> None:
    server = serve(AUTH_BOTH)
    with a_good_client_is_served(server, 64e6), greeted(server) as peer, suppress(OSError):
        for first in range(1, 114_000, 200):
            peer.send(*(frame(HEADERS, END_HEADERS, stream) for stream in range(first, first + 200, 2)))
            peer.discard()
        peer.wait_closed()


@pytest.mark.parametrize("kind", ["a frame", "a block", "its continuations"])
def test_headers_that_come_slowly_are_not_waited_for(serve: Serve, kind: str) -> None:
    server = serve(f"{AUTH}[limits]\nheader_timeout_ms = 700\n")
    block = header_block(call_headers(PING_PATH, CREDENTIALS))
    whole = frame(HEADERS, END_HEADERS, 1, block)
    slowly = {
        "a frame": whole,
        "a block": frame(HEADERS, 0, 1, block),
        "its continuations": frame(HEADERS, 0, 1, block) + frame(CONTINUATION, 0, 1) * 8,
    }[kind]
    with (  # noqa: PT012
        greeted(server) as peer,
        a_good_client_is_served(server, 64e6),
        pytest.raises(OSError),
    ):
        for octet in slowly:
            peer.send(bytes((octet,)))
            time.sleep(0.02)
        while True:
            peer.discard()
            time.sleep(0.02)


# Headers


def test_headers_that_are_refused_leave_the_compression_as_it_should_be(serve: Serve) -> None:
    """CVE-2023-32731: what a refused list has put into the table is there for the next one."""
    server = serve(f"{AUTH}[limits]\nmax_metadata_bytes = 4096\n")
    name, value = (text.encode() for text in CREDENTIALS)
    remembered = b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value
    calling = header_block(call_headers(PING_PATH))
    with greeted(server) as peer:
        large = header_block([("x", "a" * 10_000)])
        peer.send(frame(HEADERS, END_HEADERS, 1, calling + remembered + large))
        peer.send(frame(DATA, END_STREAM, 1, message()))
        assert b"grpc-status: 8" in answer_to(peer, 1)
        peer.send(frame(HEADERS, END_HEADERS, 3, calling + b"\xbe"), frame(DATA, END_STREAM, 3, message()))
        assert b"grpc-status: 0" in answer_to(peer, 3)


# The end


def test_a_server_that_ends_lets_calls_finish_whatever_else_is_connected(serve: Serve) -> None:
    """Such as peers that it is about to let go: they did too much, and have not ended a request."""
    server = serve(AUTH)
    begun = server.stderr_path.with_name("begun")
    command = RemSvc_pb2.RemCmdMsg(cmd=f"touch {begun}; sleep 1; echo finished")
    with ExitStack() as stack:
        stub = stack.enter_context(good_client(server))
        answer = stub.RemCmd.future(command, metadata=METADATA, timeout=DEADLINE)
        eventually(begun.exists)
        for _ in range(20):
            peer = stack.enter_context(greeted(server))
            peer.call(1, PING_PATH)
            assert b"grpc-status: 16" in answer_to(peer, 1)
            peer.send(frame(HEADERS, 0, 3), frame(CONTINUATION, 0, 3) * 9)
            assert any(got.kind == GOAWAY for got in peer.frames())
        server.process.terminate()
        assert answer.result().out == "finished\n"
        assert server.process.wait(DEADLINE) == 0
