"""The rules of HTTP/2 that a client can break, each with the bytes that break it and what must come of it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from tests.attacks.abuses import STREAM_PATH, WATCH_PATH
from tests.attacks.conftest import TOKEN
from tests.attacks.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PRIORITY_UPDATE,
    PUSH,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Header,
    call_headers,
    frame,
    header_block,
    message,
    reset,
    settings,
    window_update,
)

MOST_STREAMS = 100
"""That a server for these rules takes on a connection."""


class Outcome(Enum):
    """What becomes of who breaks a rule."""

    CONNECTION = "the connection ends"
    STREAM = "the stream is reset"
    NOTHING = "nothing: it has no effect"


class Rule(NamedTuple):
    """One rule.

    Attributes:
        section: of RFC 9113, if not said otherwise.
        broken: what breaks it, after the connection was begun as it should be.
        outcome: what comes of it, at least as severe as is asked for.
    """

    name: str
    section: str
    outcome: Outcome
    broken: Callable[[], bytes]


_CALL = [*call_headers(STREAM_PATH), ("authorization", f"Bearer {TOKEN}")]
_TREE = struct.pack(">IB", 1, 16)  # depends on stream 1: the PRIORITY of RFC 7540
_C, _S, _N = Outcome


def _headers(stream: int, headers: Sequence[Header], flags: int = END_HEADERS, before: bytes = b"") -> bytes:
    return frame(HEADERS, flags, stream, before + header_block(headers))


def _call(stream: int = 1, *extra: Header, end: bool = False) -> bytes:
    """A stream of commands: it stays open until it is ended."""
    return _headers(stream, [*_CALL, *extra], END_HEADERS | (END_STREAM if end else 0))


def _watch(stream: int = 1) -> bytes:
    """A call whose request has come as a whole, and that is never answered as a whole."""
    return _headers(stream, call_headers(WATCH_PATH)) + frame(DATA, END_STREAM, stream, message())


def _changed(name: str, value: str | bytes | None) -> bytes:
    """A call, one of whose headers has another value, or is missing."""
    kept = [(each, value if each == name else old) for each, old in _CALL]
    return _headers(1, [(each, text) for each, text in kept if text is not None])


def _with(*extra: Header) -> Callable[[], bytes]:
    return lambda: _call(1, *extra)


def _without(name: str) -> Callable[[], bytes]:
    return lambda: _changed(name, None)


def _as(name: str, value: str | bytes) -> Callable[[], bytes]:
    return lambda: _changed(name, value)


def _trailers(*fields: Header, end: bool = True) -> Callable[[], bytes]:
    return lambda: _call() + _headers(1, fields, END_HEADERS | (END_STREAM if end else 0))


def _block(octets: bytes) -> Callable[[], bytes]:
    return lambda: frame(HEADERS, END_HEADERS, 1, octets)


def _plain(kind: int, flags: int, stream: int, payload: bytes = b"") -> Callable[[], bytes]:
    return lambda: frame(kind, flags, stream, payload)


def _within_headers(*pieces: bytes) -> Callable[[], bytes]:
    return lambda: _headers(1, _CALL, 0) + b"".join(pieces)


RULES = [
    # Streams
    Rule("a stream of the server's", "5.1.1", _C, lambda: _call(2)),
    Rule("headers on stream 0", "6.2", _C, lambda: _call(0)),
    Rule(
        "more streams than permitted",
        "5.1.2",
        _C,
        lambda: b"".join(_watch(stream) for stream in range(1, 2 * MOST_STREAMS + 2, 2)),
    ),
    # Data
    Rule("data on stream 0", "6.1", _C, _plain(DATA, 0, 0, b"x")),
    Rule("data on an idle stream", "5.1", _C, _plain(DATA, 0, 1, b"x")),
    Rule("data on an idle stream of the server's", "5.1", _C, _plain(DATA, 0, 2, b"x")),
    Rule("data after the end of the request", "5.1", _C, lambda: _watch() + frame(DATA, 0, 1, b"x")),
    Rule("padded data without its length", "6.1", _C, lambda: _call() + frame(DATA, PADDED, 1)),
    Rule("more padding than data", "6.1", _C, lambda: _call() + frame(DATA, PADDED, 1, b"\5abc")),
    Rule("a data frame that is too long", "4.2", _C, lambda: _call() + frame(DATA, 0, 1, bytes(16385))),
    Rule(
        "more data than the stream's window", "5.2", _C, lambda: _call() + frame(DATA, 0, 1, bytes(16384)) * 5
    ),
    Rule(
        "less data than promised", "8.1.1", _S, lambda: _with_length("9") + frame(DATA, END_STREAM, 1, b"abc")
    ),
    Rule("more data than promised", "8.1.1", _S, lambda: _with_length("2") + frame(DATA, 0, 1, b"abc")),
    Rule(
        "no data where some were promised", "8.1.1", _S, lambda: _call(1, ("content-length", "9"), end=True)
    ),
    Rule("two lengths", "8.1.1", _S, _with(("content-length", "9"), ("content-length", "9"))),
    Rule("a length that is no number", "8.1.1", _S, _with(("content-length", "+9"))),
    # How headers are framed and compressed
    Rule("padded headers without their length", "6.2", _C, _plain(HEADERS, END_HEADERS | PADDED, 1)),
    Rule("more padding than headers", "6.2", _C, lambda: _headers(1, _CALL, END_HEADERS | PADDED, b"\xff")),
    Rule("headers too short for their priority", "6.2", _C, _plain(HEADERS, 0x24, 1, b"\0\0\0")),
    Rule("a headers frame that is too long", "4.2", _C, _block(header_block(_CALL) + bytes(16384))),
    Rule(
        "headers that depend on themselves",
        "5.3.1 of RFC 7540",
        _C,
        lambda: _headers(1, _CALL, END_HEADERS | PRIORITY_FLAG, _TREE),
    ),
    Rule("headers after the end of the request", "5.1", _C, lambda: _watch() + _headers(1, [("a", "b")])),
    Rule("HPACK: an index that is none", "4.3", _C, _block(b"\xff\xff\xff\x0f")),
    Rule("HPACK: index 0", "4.3", _C, _block(b"\x80")),
    Rule("HPACK: an integer without an end", "4.3", _C, _block(b"\xff" + b"\x80" * 30 + b"\x01")),
    Rule("HPACK: a literal that is cut off", "4.3", _C, _block(b"\x00\x05ab")),
    Rule("HPACK: Huffman's end of string", "4.3", _C, _block(b"\x00\x84\xff\xff\xff\xff\x01a")),
    Rule("HPACK: a larger table than permitted", "4.3", _C, _block(b"\x3f\xe2\x1f" + header_block(_CALL))),
    Rule("HPACK: the table's size behind a header", "4.3", _C, _block(header_block(_CALL) + b"\x20")),
    # Headers in several frames
    Rule("a continuation of nothing", "6.10", _C, _plain(CONTINUATION, END_HEADERS, 1, header_block(_CALL))),
    Rule("a continuation after the end", "6.10", _C, lambda: _call() + frame(CONTINUATION, END_HEADERS, 1)),
    Rule(
        "a continuation on another stream", "6.10", _C, _within_headers(frame(CONTINUATION, END_HEADERS, 3))
    ),
    Rule("a continuation on stream 0", "6.10", _C, _within_headers(frame(CONTINUATION, END_HEADERS, 0))),
    Rule("a ping between headers", "6.10", _C, _within_headers(frame(PING, 0, 0, bytes(8)))),
    Rule("data between headers", "6.10", _C, _within_headers(frame(DATA, 0, 1, b"x"))),
    Rule("an unknown frame between headers", "5.5", _C, _within_headers(frame(0x77, 0, 1))),
    Rule("headers between headers", "6.10", _C, _within_headers(_call(3))),
    Rule("headers in very many frames", "10.5", _C, _within_headers(frame(CONTINUATION, 0, 1) * 9)),
    # Priorities, and resets
    Rule("a priority of a wrong length", "6.3", _C, _plain(PRIORITY, 0, 1, bytes(4))),
    Rule("a reset of stream 0", "6.4", _C, lambda: reset(0)),
    Rule("a reset of an idle stream", "6.4", _C, lambda: reset(1)),
    Rule("a reset of an idle stream of the server's", "6.4", _C, lambda: reset(2)),
    Rule("a reset of a wrong length", "6.4", _C, lambda: _call() + frame(RST_STREAM, 0, 1, bytes(3))),
    # Settings
    Rule("settings on a stream", "6.5", _C, _plain(SETTINGS, 0, 1)),
    Rule("settings of a wrong length", "6.5", _C, _plain(SETTINGS, 0, 0, bytes(5))),
    Rule("an acknowledgement that says something", "6.5", _C, _plain(SETTINGS, ACK, 0, bytes(6))),
    Rule("an acknowledgement of nothing", "6.5.3", _C, _plain(SETTINGS, ACK, 0)),
    Rule("push, neither on nor off", "6.5.2", _C, lambda: settings((2, 2))),
    Rule("a window of 2^31", "6.5.2", _C, lambda: settings((4, 2**31))),
    Rule("frames of at most 16383 bytes", "6.5.2", _C, lambda: settings((5, 16383))),
    Rule("frames of up to 2^24 bytes", "6.5.2", _C, lambda: settings((5, 2**24))),
    Rule("CONNECT, neither on nor off", "3 of RFC 8441", _C, lambda: settings((8, 2))),
    Rule("priorities, neither on nor off", "2.1 of RFC 9218", _C, lambda: settings((9, 2))),
    Rule(
        "settings that widen a window too far",
        "6.9.2",
        _C,
        # By much, as the first answer may have taken some of it.
        lambda: _watch() + window_update(1, 0x7FFF0000) + settings((4, 2**31 - 1)),
    ),
    Rule("very many settings at once", "10.5", _C, lambda: settings(*[(0x99, 1)] * 33)),
    # Push, ping, and the end
    Rule("a push from a client", "8.4", _C, lambda: _call() + frame(PUSH, END_HEADERS, 1, b"\0\0\0\2\x82")),
    Rule("a ping on a stream", "6.7", _C, _plain(PING, 0, 1, bytes(8))),
    Rule("a ping of a wrong length", "6.7", _C, _plain(PING, 0, 0, bytes(7))),
    Rule("an end on a stream", "6.8", _C, lambda: _call() + frame(GOAWAY, 0, 1, bytes(8))),
    Rule("an end that is too short", "6.8", _C, _plain(GOAWAY, 0, 0, bytes(7))),
    Rule("an end at a stream of the client's own", "6.8", _C, _plain(GOAWAY, 0, 0, struct.pack(">II", 1, 0))),
    Rule(
        "an end that moves up",
        "6.8",
        _C,
        lambda: b"".join(frame(GOAWAY, 0, 0, struct.pack(">II", last, 0)) for last in (2, 4)),
    ),
    # Windows
    Rule("a window of nothing more", "6.9", _C, lambda: window_update(0, 0)),
    Rule("a stream's window of nothing more", "6.9", _C, lambda: _call() + window_update(1, 0)),
    Rule("a window that is too wide", "6.9.1", _C, lambda: window_update(0, 2**31 - 1)),
    Rule("a stream's window that is too wide", "6.9.1", _C, lambda: _call() + window_update(1, 2**31 - 1)),
    Rule("a window of a wrong length", "6.9", _C, _plain(WINDOW_UPDATE, 0, 0, bytes(3))),
    Rule("a window of an idle stream", "5.1", _C, lambda: window_update(1, 1)),
    # Extensions
    Rule(
        "a priority update on a stream", "7.1 of RFC 9218", _C, _plain(PRIORITY_UPDATE, 0, 1, b"\0\0\0\1u=1")
    ),
    Rule("a priority update of a push", "7.1 of RFC 9218", _C, _plain(PRIORITY_UPDATE, 0, 0, b"\0\0\0\2u=1")),
    Rule(
        "a priority update that is too short", "7.1 of RFC 9218", _C, _plain(PRIORITY_UPDATE, 0, 0, bytes(3))
    ),
    # Names and values
    Rule("a name in upper case", "8.2.1", _S, _with(("X-Upper", "v"))),
    Rule("a name with a space", "8.2.1", _S, _with(("a b", "v"))),
    Rule("a name with a colon", "8.2.1", _S, _with(("a:b", "v"))),
    Rule("a name that is not ASCII", "8.2.1", _S, _with((b"a\xff", "v"))),
    Rule("a name of nothing", "8.2.1", _S, _with(("", "v"))),
    Rule("a value with NUL", "8.2.1", _S, _with(("a", "b\0c"))),
    Rule("a value with a line feed", "8.2.1", _S, _with(("a", "b\nc"))),
    Rule("a value with a carriage return", "8.2.1", _S, _with(("a", "b\rc"))),
    Rule("a value that begins with a space", "8.2.1", _S, _with(("a", " b"))),
    Rule("a value that ends with a tab", "8.2.1", _S, _with(("a", "b\t"))),
    Rule("connection", "8.2.2", _S, _with(("connection", "close"))),
    Rule("keep-alive", "8.2.2", _S, _with(("keep-alive", "1"))),
    Rule("proxy-connection", "8.2.2", _S, _with(("proxy-connection", "x"))),
    Rule("transfer-encoding", "8.2.2", _S, _with(("transfer-encoding", "chunked"))),
    Rule("upgrade", "8.2.2", _S, _with(("upgrade", "h2c"))),
    Rule("te, but not trailers", "8.2.2", _S, _as("te", "gzip")),
    # What a request consists of
    Rule("no method", "8.3.1", _S, _without(":method")),
    Rule("no scheme", "8.3.1", _S, _without(":scheme")),
    Rule("no path", "8.3.1", _S, _without(":path")),
    Rule("no authority and no host", "8.3.1", _S, _without(":authority")),
    Rule("an empty path", "8.3.1", _S, _as(":path", "")),
    Rule("a path without a slash", "8.3.1", _S, _as(":path", "RS.RemSvc/Ping")),
    Rule("an asterisk as the path", "8.3.1", _S, _as(":path", "*")),
    Rule("a path with a space", "8.3.1", _S, _as(":path", "/a b")),
    Rule("a path with a control character", "8.3.1", _S, _as(":path", "/a\x01")),
    Rule("an authority with a user's name", "8.3.1", _S, _as(":authority", "u@h")),
    Rule("an empty authority", "8.3.1", _S, _as(":authority", "")),
    Rule("a method with a space", "8.3.1", _S, _as(":method", "PO ST")),
    Rule("two paths", "8.3.1", _S, lambda: _headers(1, [*_CALL[:4], (":path", "/b")])),
    Rule("two methods", "8.3.1", _S, lambda: _headers(1, [*_CALL[:4], (":method", "GET")])),
    Rule("a pseudo-header that is none", "8.3", _S, lambda: _headers(1, [*_CALL[:4], (":x", "y")])),
    Rule("a status in a request", "8.3", _S, lambda: _headers(1, [*_CALL[:4], (":status", "200")])),
    Rule(
        "a protocol that was not offered",
        "4 of RFC 8441",
        _S,
        lambda: _headers(1, [*_CALL[:4], (":protocol", "x")]),
    ),
    Rule(
        "a pseudo-header behind another", "8.3", _S, lambda: _headers(1, [*_CALL[:3], ("a", "b"), _CALL[3]])
    ),
    Rule("no headers at all", "8.3.1", _S, _block(b"")),
    Rule("CONNECT with a path", "8.5", _S, _as(":method", "CONNECT")),
    # Trailers
    Rule("trailers that do not end the request", "8.1", _S, _trailers(("a", "b"), end=False)),
    Rule("a pseudo-header in trailers", "8.1", _S, _trailers((":path", "/"))),
    Rule("a name in upper case in trailers", "8.2.1", _S, _trailers(("A", "b"))),
    Rule("a value with NUL in trailers", "8.2.1", _S, _trailers(("a", b"\0"))),
    Rule("connection in trailers", "8.2.2", _S, _trailers(("connection", "x"))),
    # Not looked at, or looked at and let pass: none of it has an effect.
    # A stream's number that was used, or passed over, is of a stream that has ended: the engine keeps no
    # list of these, and drops what comes for one, as it must for what was on its way (5.1).
    Rule("a stream that was passed over", "5.1.1", _N, lambda: _call(5, end=True) + _call(3)),
    Rule("a stream again after its reset", "5.1.1", _N, lambda: _call() + reset(1) + _call()),
    # Priorities of RFC 7540 have no meaning any more (5.3.2): only their length is looked at.
    Rule("a priority of stream 0", "6.3", _N, _plain(PRIORITY, 0, 0, _TREE)),
    Rule("a priority that depends on itself", "5.3.1 of RFC 7540", _N, _plain(PRIORITY, 0, 1, _TREE)),
    # What follows is no breach: whoever refuses it breaks a rule himself.
    Rule("data on a stream that was reset", "5.1", _N, lambda: _call() + reset(1) + frame(DATA, 0, 1, b"x")),
    Rule("two resets", "5.1", _N, lambda: _call() + reset(1) * 2),
    Rule("a window of a stream that was reset", "5.1", _N, lambda: _call() + reset(1) + window_update(1, 1)),
    Rule("a setting that nobody knows", "6.5.2", _N, lambda: settings((0x99, 1))),
    Rule("an answer to a ping that nobody sent", "6.7", _N, _plain(PING, ACK, 0, bytes(8))),
    Rule("a frame that nobody knows", "5.5", _N, _plain(0x77, 0xFF, 1, b"abc")),
    Rule("an alternative service", "4 of RFC 7838", _N, _plain(0xA, 0, 0, b"\0\1hx")),
    Rule("an origin", "2 of RFC 8336", _N, _plain(0xC, 0, 0, b"\0\1h")),
]

BEGINNINGS = [
    Rule("HTTP/1.1", "3.4", _C, lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    Rule("a preface with an error", "3.4", _C, lambda: PREFACE[:-1] + b"\0" + frame(SETTINGS, 0, 0)),
    Rule("a ping before the settings", "3.4", _C, lambda: PREFACE + frame(PING, 0, 0, bytes(8))),
    Rule("an acknowledgement before the settings", "3.4", _C, lambda: PREFACE + frame(SETTINGS, ACK, 0)),
    Rule("a call before the settings", "3.4", _C, lambda: PREFACE + _call()),
]
"""What cannot begin a connection: nothing comes before it."""


def _with_length(length: str) -> bytes:
    return _call(1, ("content-length", length))
