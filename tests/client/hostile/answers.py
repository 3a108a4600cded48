"""Servers of all hostile kinds: each answers the first call on a connection as no server should.

As a program: ``python -m tests.client.hostile.answers``. It prints one JSON object, the port of each kind on
127.0.0.1, and serves until its standard input ends.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from tests.attacks.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Header,
    frame,
    header_block,
    message,
)

PADDED = 0x8
_UNKNOWN, _ALTSVC = 0xEE, 0xA
# The longest that a kind goes on; a client ends its calls before.
_SECONDS = 20.0

_OK: tuple[Header, ...] = ((":status", "200"), ("content-type", "application/grpc"))
_DONE: tuple[Header, ...] = (("grpc-status", "0"),)


class Caller:
    """A connection of a client's, on which a call has begun."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ends = time.monotonic() + _SECONDS
        threading.Thread(target=self._discard, daemon=True).start()

    def _discard(self) -> None:
        with suppress(OSError):
            while self._connection.recv(1 << 16):
                pass

    def send(self, *pieces: bytes) -> None:
        """Raises ``OSError`` where the client has gone."""
        self._connection.sendall(b"".join(pieces))

    def flood(self, *pieces: bytes) -> None:
        """Send these again and again, in large pieces."""
        piece = b"".join(pieces)
        many = piece * max(1, 65536 // len(piece))
        while time.monotonic() < self._ends:
            self.send(many)

    def headers(self, stream: int, headers: Iterable[Header] = _OK, *, last: bool = False) -> None:
        flags = END_HEADERS | (END_STREAM if last else 0)
        self.send(frame(HEADERS, flags, stream, header_block(headers)))

    def wait(self) -> None:
        """Until the client has gone."""
        while time.monotonic() < self._ends:
            time.sleep(0.05)
            self.send(b"")
            if self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return


Answer = Callable[[Caller, int], None]


def flooding(*pieces: bytes) -> Answer:
    """Whatever the call is."""
    return lambda caller, stream: caller.flood(*pieces)


def of_call(make: Callable[[int], bytes], *, begun: bool = True) -> Answer:
    """A flood that belongs to the call; ``begun``: after the headers of its answer."""

    def answer(caller: Caller, stream: int) -> None:
        if begun:
            caller.headers(stream)
        caller.flood(make(stream))

    return answer


def saying(*pieces: Callable[[int], bytes]) -> Answer:
    """Something once, and then nothing more."""

    def answer(caller: Caller, stream: int) -> None:
        caller.send(*(piece(stream) for piece in pieces))
        caller.wait()

    return answer


def head(headers: Iterable[Header] = _OK, *, last: bool = False) -> Callable[[int], bytes]:
    flags = END_HEADERS | (END_STREAM if last else 0)
    return lambda stream: frame(HEADERS, flags, stream, header_block(headers))


def data(content: bytes, flags: int = 0) -> Callable[[int], bytes]:
    return lambda stream: frame(DATA, flags, stream, content)


def ended(*headers: Header) -> Callable[[int], bytes]:
    """An answer that is headers alone."""
    return head((*_OK, *headers), last=True)


def bomb(stream: int) -> bytes:
    """One large header in the table, named thousands of times (an HPACK bomb)."""
    entry = b"\x40" + b"\x01x" + b"\x7f\x81\x1e" + b"a" * 3968
    block = b"\x88" + entry + b"\xbe" * 12_000
    return frame(HEADERS, END_HEADERS, stream, block[:16384])


def goaway(last: int, code: int, text: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + text)


def slowly(caller: Caller, stream: int) -> None:
    caller.headers(stream)
    for octet in data(message(bytes(1000)))(stream):
        caller.send(bytes((octet,)))
        time.sleep(0.02)


def push(stream: int) -> bytes:
    return frame(PUSH, END_HEADERS, stream, struct.pack(">I", 2) + header_block(_OK))


def resets(caller: Caller, stream: int) -> None:
    caller.headers(stream)
    caller.flood(frame(RST_STREAM, 0, stream, struct.pack(">I", 2)))


def mutated(caller: Caller, stream: int) -> None:
    while True:
        caller.send(os.urandom(16384))


_WINDOW_ONE = struct.pack(">I", 1)

ANSWERS: dict[str, Answer] = {
    # Floods
    "pings": flooding(frame(PING, 0, 0, bytes(8))),
    "pongs": flooding(frame(PING, ACK, 0, bytes(8))),
    "settings": flooding(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))),
    "many settings": flooding(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535) * 30)),
    "window updates": flooding(frame(WINDOW_UPDATE, 0, 0, _WINDOW_ONE)),
    "window updates of the call": of_call(lambda stream: frame(WINDOW_UPDATE, 0, stream, _WINDOW_ONE)),
    "unknown frames": flooding(frame(_UNKNOWN, 0, 0)),
    "large unknown frames": flooding(frame(_UNKNOWN, 0, 0, bytes(16384))),
    "priorities": of_call(lambda stream: frame(PRIORITY, 0, stream, bytes(5)), begun=False),
    "alternative services": flooding(frame(_ALTSVC, 0, 0, b"\0\1oclear")),
    "empty data": of_call(lambda stream: frame(DATA, 0, stream)),
    "padding": of_call(lambda stream: frame(DATA, PADDED, stream, b"\0")),
    "single bytes of data": of_call(lambda stream: frame(DATA, 0, stream, b"\0")),
    "continuations": of_call(
        lambda stream: frame(HEADERS, 0, stream, b"\x88") + frame(CONTINUATION, 0, stream) * 1000, begun=False
    ),
    "informational answers": of_call(
        lambda stream: frame(HEADERS, END_HEADERS, stream, header_block([(":status", "103")])), begun=False
    ),
    "resets": resets,
    "goaways": flooding(goaway(2**31 - 1, 0, b"x" * 1000)),
    "empty messages": of_call(lambda stream: frame(DATA, 0, stream, message() * 3000)),
    "small messages": of_call(lambda stream: frame(DATA, 0, stream, message(b"\x08\x01") * 2000)),
    "random bytes": mutated,
    "an HPACK bomb": of_call(bomb, begun=False),
    # Sizes
    "a huge header list": saying(head([*_OK, *((f"x-{n}", "a" * 500) for n in range(31))])),
    "thousands of headers": saying(head([*_OK, *(("x", "") for _ in range(3000))])),
    "headers that never end": saying(lambda stream: frame(HEADERS, 0, stream, header_block(_OK))),
    "four gigabytes announced": saying(head(), data(message(bytes(1000), claimed=2**32 - 1))),
    "a message over the limit": saying(head(), data(message(bytes(1000), claimed=65 * 1024 * 1024))),
    "more than the window": of_call(lambda stream: frame(DATA, 0, stream, bytes(16384))),
    # What is no answer
    "silence": saying(),
    "a byte now and then": slowly,
    "no message": saying(head(), head(_DONE, last=True)),
    "two messages": saying(head(), data(message() * 2), head(_DONE, last=True)),
    "two messages and no end": saying(head(), data(message() * 2)),
    "half a message": saying(head(), data(message(b"x", claimed=9)), head(_DONE, last=True)),
    "a compressed message": saying(head(), data(b"\1" + message(b"x")[1:]), head(_DONE, last=True)),
    "no status": saying(head(), data(message(), END_STREAM)),
    "a status that is none": saying(ended(("grpc-status", "many"))),
    "an unknown status": saying(ended(("grpc-status", "99"))),
    "controls in the text": saying(ended(("grpc-status", "2"), ("grpc-message", "a%0D%0A%1B[2Jb%E2%80%AEc"))),
    "a text that is no UTF-8": saying(ended(("grpc-status", "2"), ("grpc-message", b"\xff%FF%zz%"))),
    "details that are no base64": saying(
        ended(("grpc-status", "8"), ("grpc-status-details-bin", "!!!"), ("grpc-status-details-bin", "AAAA"))
    ),
    "a web page": saying(
        head([(":status", "200"), ("content-type", "text/html")]), data(b"<html>", END_STREAM)
    ),
    "not found": saying(head([(":status", "404")], last=True)),
    "an overloaded proxy": saying(head([(":status", "503")], last=True)),
    "a status of HTTP that is none": saying(head([(":status", "999")], last=True)),
    # What breaks the rules of HTTP/2
    "two final answers": saying(head(), head()),
    "data before headers": saying(data(message())),
    "headers after the end": saying(ended(("grpc-status", "0")), head(), head()),
    "a push": saying(
        lambda stream: frame(PUSH, END_HEADERS, stream, struct.pack(">I", 2) + header_block(_OK))
    ),
    "a window that overflows": saying(
        lambda stream: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)) * 2
    ),
    "bad names": saying(head([*_OK, ("Bad Name", "x"), ("", "y")])),
    "goaway": saying(lambda stream: goaway(0, 0)),
    "goaway with controls": saying(lambda stream: goaway(stream, 11, b"a\r\n\x1b[2Jb\xff")),
    "goaway of a call to come": saying(lambda stream: goaway(2**31 - 1, 0), lambda stream: goaway(7, 0)),
    "refusal": saying(lambda stream: frame(RST_STREAM, 0, stream, struct.pack(">I", 7))),
    "refusal after an answer": saying(
        head(), data(message()), lambda stream: frame(RST_STREAM, 0, stream, struct.pack(">I", 7))
    ),
    "an end": lambda caller, stream: None,
}
"""Each kind by its name."""

GREETINGS: dict[str, bytes | None] = {
    "HTTP/1": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "a TLS alert": bytes.fromhex("15030100020246"),
    "a frame that never ends": b"\xff\xff\xff\0\0\0\0\0\0" + bytes(1000),
    "no greeting": b"",
    "a goaway as a greeting": frame(SETTINGS, 0, 0) + goaway(0, 0),
    "a greeting and an end": frame(SETTINGS, 0, 0) + frame(GOAWAY, 0, 0),
    "a door that closes": None,
}
"""What is said instead of what begins a connection; None: it is closed."""

FLOODS = tuple(ANSWERS)[: tuple(ANSWERS).index("an HPACK bomb") + 1]

KINDS = (*ANSWERS, *GREETINGS)


def _serve(listener: socket.socket, kind: str) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_one, args=(connection, kind), daemon=True).start()


def _one(connection: socket.socket, kind: str) -> None:
    with connection, suppress(OSError, EOFError):
        if kind in GREETINGS:
            said = GREETINGS[kind]
            if said is not None:
                connection.sendall(said)
                connection.settimeout(_SECONDS)
                while connection.recv(65536):
                    pass
            return
        connection.sendall(frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))
        stream = _first_call(connection)
        ANSWERS[kind](Caller(connection), stream)


def _first_call(connection: socket.socket) -> int:
    """Read until a call's headers; its stream."""
    connection.settimeout(_SECONDS)
    _exactly(connection, len(PREFACE))
    while True:
        prefix = _exactly(connection, 9)
        _exactly(connection, int.from_bytes(prefix[:3], "big"))
        if prefix[3] == HEADERS:
            return int.from_bytes(prefix[5:], "big")


def _exactly(connection: socket.socket, size: int) -> bytes:
    octets = b""
    while len(octets) < size:
        piece = connection.recv(size - len(octets))
        if not piece:
            raise EOFError
        octets += piece
    return octets


def main() -> None:
    """Serve every kind."""
    ports = {}
    for kind in KINDS:
        listener = socket.create_server(("127.0.0.1", 0))
        ports[kind] = listener.getsockname()[1]
        threading.Thread(target=_serve, args=(listener, kind), daemon=True).start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
