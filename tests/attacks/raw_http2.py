"""A peer that speaks HTTP/2 frame by frame, so that it can break every rule of it."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20
CANCEL = 8

Header = tuple[str | bytes, str | bytes]


class Frame(NamedTuple):
    """One frame as it arrived. Of one with headers, ``text`` is what they say, a line each."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    text: bytes = b""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(headers: Iterable[Header]) -> bytes:
    """HPACK without tables or Huffman codes: every header literal, never indexed."""
    block = bytearray()
    for name, value in headers:
        block.append(0x10)
        for text in (name, value):
            octets = text.encode() if isinstance(text, str) else text
            block += _hpack_length(len(octets)) + octets
    return bytes(block)


def _hpack_length(length: int) -> bytes:
    if length < 127:
        return bytes((length,))
    octets = bytearray((127,))
    length -= 127
    while length >= 128:
        octets.append(length & 127 | 128)
        length >>= 7
    octets.append(length)
    return bytes(octets)


def call_headers(path: str | bytes, *extra: Header) -> list[Header]:
    """The headers that begin a gRPC call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *extra,
    ]


def message(content: bytes = b"", *, claimed: int | None = None) -> bytes:
    """A length-prefixed gRPC message; ``claimed`` is the length it says it has."""
    return b"\0" + struct.pack(">I", len(content) if claimed is None else claimed) + content


def reset(stream: int, error: int = CANCEL) -> bytes:
    """The frame that resets a stream."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", error))


def settings(*pairs: tuple[int, int]) -> bytes:
    """A frame of settings: which, and its value."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream: int, more: int) -> bytes:
    """The frame that widens a window."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


class RawPeer:
    """One connection. Writes what it is told; reads whole frames."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        source: str = "",
        tls: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._timeout = timeout
        plain = socket.create_connection((host, port), timeout, (source, 0) if source else None)
        try:
            self.socket = (
                tls.wrap_socket(plain, server_hostname="localhost", session=session) if tls else plain
            )
        except BaseException:
            plain.close()
            raise
        self._buffer = b""
        self._headers = hpack.Decoder()

    def __enter__(self) -> RawPeer:  # noqa: PYI034  Self is of Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send bytes. Raises ``OSError`` where the server has closed the connection."""
        self.socket.sendall(b"".join(pieces))

    def greet(self, settings: bytes = b"") -> None:
        """Send what begins a connection."""
        self.send(PREFACE, frame(SETTINGS, 0, 0, settings))

    def call(self, stream: int, path: str | bytes, *extra: Header, body: bytes | None = None) -> None:
        """Begin a call, and end the request where a body is given."""
        self.send(frame(HEADERS, END_HEADERS, stream, header_block(call_headers(path, *extra))))
        if body is not None:
            self.send(frame(DATA, END_STREAM, stream, body))

    def frames(self) -> Iterator[Frame]:
        """Frames until the server closes the connection. Raises ``TimeoutError``."""
        while True:
            while len(self._buffer) < 9 or len(self._buffer) < 9 + self._length:
                if not self._fill():
                    return
            length = self._length
            kind, flags, stream = struct.unpack(">BBI", self._buffer[3:9])
            payload = self._buffer[9 : 9 + length]
            self._buffer = self._buffer[9 + length :]
            text = b""
            if kind == HEADERS:
                headers = self._headers.decode(payload, raw=True)
                text = b"".join(b"%s: %s\n" % header for header in headers)
            yield Frame(kind, flags, stream & 0x7FFFFFFF, payload, text)

    def wait_ended(self, count: int) -> None:
        """Read until so many calls have ended. Raises ``ConnectionError`` where the connection did."""
        for got in self.frames():
            if got.kind == RST_STREAM or (got.kind == HEADERS and got.flags & END_STREAM):
                count -= 1
                if count <= 0:
                    return
        raise ConnectionError("closed by the server")

    def discard(self) -> None:
        """Throw away what has arrived. Raises ``ConnectionError`` where the connection has ended."""
        self._buffer = b""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(1 << 20):
                pass
            raise ConnectionError("closed by the server")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        finally:
            self.socket.settimeout(self._timeout)

    def is_closed(self) -> bool:
        """Whether the server has closed the connection; throws away what has arrived."""
        try:
            self.discard()
        except OSError:
            return True
        return False

    def wait_closed(self) -> None:
        """Read until the server closes the connection. Raises ``TimeoutError``."""
        for _ in self.frames():
            pass

    @property
    def _length(self) -> int:
        return int.from_bytes(self._buffer[:3], "big")

    def _fill(self) -> bool:
        try:
            octets = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return False
        self._buffer += octets
        return bool(octets)
