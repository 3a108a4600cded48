"""Damage to a peer's frames: what a broken or hostile peer makes of a valid session."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.attacks.raw_http2 import (
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
    frame,
    header_block,
)

PADDED, PRIORITIZED = 0x8, 0x20
ALTSVC, ORIGIN, PRIORITY_UPDATE, UNKNOWN = 10, 12, 16, 200
_LONGEST_FRAME = 16_384

_BYTES = (0, 1, 4, 5, 8, 9, 0x20, 0x3F, 0x7F, 0x80, 0xBE, 0xFF)
_NUMBERS = (0, 1, 2, 3, 5, 99, 16_384, 65_535, 0x7FFFFFFF, 0x80000001, 0xFFFFFFFF)
_KINDS = (*range(11), HEADERS, 11, ORIGIN, PRIORITY_UPDATE, UNKNOWN)
_NAMES = (b"a", b"Bad", b"te", b"connection", b":path", b"content-length", b"host", b"", b"a b", b"priority")
_VALUES = (b"", b"x", b" x", b"x\n", b"trailers", b"5", b"9" * 20, b"\xff", b"u=2", b"v" * 2_000)
# Header blocks that are well formed as HPACK: nothing, a request, answers, a part of a request.
_BLOCKS = (b"", b"", b"\x83\x86\x84\x01\x01x", b"\x88", b"\x08\x03103", b"\x82\x86\x84")
_RESIZES = (b"\x20", b"\x3f\xe1\x1f", b"\x3f\xff\xff\xff\xff\x0f", b"\xff" * 7 + b"\x7f")
_PRIORITIES = (b"", b"u=1", b"u=9;i=?1", b'u="a";b=:YQ==:,i=(1 2.5 c);d', b"\xff" * 9, b"a" * 12_000)
_ALTERNATIVES = (b"\0\0clear", b"\0\x08http://xclear", b"\xff\xffab", b"\0", bytes(16_000))
_ORIGINS = (b"\0\x08http://x" * 3, b"\0\0" * 8_000, b"\0\1x" * 5_000, b"\0\x09http://x", b"\0")


class Damage:
    """Damages the frames of one session.

    Most connections end at the first gross error, so only those that meet errors which cost no more than
    a stream get into the deeper states. A session has one kind of damage for all its life.

    Args:
        rng: decides everything.
        streams: of the session; may grow.
        gentle: whether each error is to cost no more than a stream.
    """

    def __init__(self, rng: random.Random, streams: Sequence[int], *, gentle: bool) -> None:
        self._rng = rng
        self._streams = streams
        self._gentle = gentle
        self._past: list[bytes] = []

    def apply(self, frames: list[bytes], faults: int) -> None:
        """Make so many changes."""
        rng = self._rng
        self._past = (self._past + frames)[-60:]
        for _ in range(faults):
            where = rng.randrange(len(frames) + 1)
            if rng.random() < 0.5 or where == len(frames):
                frames.insert(where, self._unexpected() if self._gentle else self._invented())
            elif self._gentle or rng.random() < 0.25:
                frames[where : where + 1] = self._reshaped(frames[where])
            else:
                change = rng.choice((self._drop, self._repeat, self._swap, self._cut, *[self._overwrite] * 6))
                change(frames, where)

    def _drop(self, frames: list[bytes], where: int) -> None:
        del frames[where]

    def _repeat(self, frames: list[bytes], where: int) -> None:
        frames.insert(where, self._rng.choice(self._past or frames))

    def _swap(self, frames: list[bytes], where: int) -> None:
        other = self._rng.randrange(len(frames))
        frames[where], frames[other] = frames[other], frames[where]

    def _cut(self, frames: list[bytes], where: int) -> None:
        frames[where] = frames[where][: self._rng.randrange(1, len(frames[where]) + 1)]

    def _overwrite(self, frames: list[bytes], where: int) -> None:
        rng = self._rng
        changed = bytearray(frames[where])
        for _ in range(rng.randrange(1, 4)):
            # The nine bytes of a frame's head decide most, so they are hit most.
            place = rng.randrange(min(len(changed), 9) if rng.random() < 0.5 else len(changed))
            changed[place] = rng.choice(_BYTES) if rng.random() < 0.6 else rng.randrange(256)
        frames[where] = bytes(changed)

    def _reshaped(self, data: bytes) -> list[bytes]:
        """The same frame in another form that is allowed, or almost."""
        if len(data) < 10 or data == PREFACE:
            return [data]
        rng = self._rng
        kind, flags, stream, payload = data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:]
        at = rng.randrange(len(payload) + 1)
        if kind in (HEADERS, PUSH, CONTINUATION) and rng.random() < 0.6:
            between = [frame(CONTINUATION, 0, stream)] * rng.choice((0, 0, 1, 9))
            first = frame(kind, flags & ~END_HEADERS, stream, payload[:at])
            return [first, *between, frame(CONTINUATION, flags & END_HEADERS, stream, payload[at:])]
        if kind == DATA and rng.random() < 0.5:
            return [frame(kind, 0, stream, payload[:at]), frame(kind, flags, stream, payload[at:])]
        if kind in (DATA, HEADERS, PUSH) and not flags & (PADDED | PRIORITIZED):
            padding, priority = rng.choice((0, 1, 255)), b""
            if kind == HEADERS and rng.random() < 0.5:
                flags, priority = flags | PRIORITIZED, self._number() + b"\x10"
            payload = bytes((padding,)) + priority + payload + bytes(padding)
            return [frame(kind, flags | PADDED, stream, payload)]
        return [data, data]

    def _number(self) -> bytes:
        return self._rng.choice(_NUMBERS).to_bytes(4, "big")

    def _field(self) -> bytes:
        field = header_block([(self._rng.choice(_NAMES), self._rng.choice(_VALUES))])
        return self._rng.choice((b"\0", b"\x10", b"\x40")) + field[1:]

    def _unexpected(self) -> bytes:
        """A frame that is allowed, or costs no more than its stream."""
        rng = self._rng
        stream = rng.choice(self._streams or (1,))
        common = (RST_STREAM, WINDOW_UPDATE, PING, SETTINGS, DATA, DATA, HEADERS, PRIORITY)
        kind = rng.choice((*common, UNKNOWN, ALTSVC, ORIGIN))
        number = rng.choice((1, 2, 8, 11, 65_535)).to_bytes(4, "big")
        if kind == RST_STREAM:
            return frame(kind, 0, stream, number)
        if kind == WINDOW_UPDATE:
            return frame(kind, 0, rng.choice((0, stream)), number)
        if kind == PING:
            return frame(kind, rng.choice((0, 1)), 0, rng.randbytes(8))
        if kind == SETTINGS:
            return frame(kind, 0, 0, rng.choice((1, 4, 77)).to_bytes(2, "big") + number)
        if kind == DATA:
            flags = rng.choice((0, 0, END_STREAM, PADDED))
            return frame(kind, flags, stream, b"\x09" * rng.choice((0, 1, 10, 3_000)))
        if kind == HEADERS:
            return frame(kind, END_HEADERS | rng.choice((0, END_STREAM)), stream, self._field())
        if kind == PRIORITY:
            return frame(kind, 0, stream, number + b"\x10")
        if kind == UNKNOWN:
            return frame(kind, rng.randrange(256), stream, rng.randbytes(rng.choice((0, 9))))
        return frame(kind, 0, 0, b"\0\x08http://x" + (b"clear" if kind == ALTSVC else b"\0\x08http://y"))

    def _invented(self) -> bytes:
        """Any frame, most of them wrong; now and then many of them."""
        rng = self._rng
        kind = rng.choice(_KINDS)
        common = (0, 0, 1, 1, 2, 3, 5, 7, 9, 101, 0x7FFFFFFF, 0x80000001)
        stream = rng.choice((*common, *self._streams[-12:]))
        some = (END_STREAM, END_HEADERS, END_HEADERS | END_STREAM, PADDED)
        flags = rng.choice((0, 0, *some, rng.randrange(256)))
        # Control frames go to stream 0 and come alone, most of the time.
        scope, times = rng.choice((0, 0, 0, 0, 0, stream)), rng.choice((1, 1, 1, 1, 1, 1, 40, 300))
        if rng.random() < 0.01:
            times = 2_000
        if kind in (HEADERS, PUSH, CONTINUATION):
            block = self._number() * (kind == PUSH) + self._block()
            flags |= rng.choice((0, END_HEADERS, END_HEADERS))
            return frame(kind, flags, stream, block[:_LONGEST_FRAME])
        if kind in (RST_STREAM, WINDOW_UPDATE):
            return frame(kind, flags, stream, self._number())
        if kind == SETTINGS:
            which = [rng.choice(b"\1\2\3\4\5\6\x08\x09\x4d") for _ in range(rng.choice((0, 1, 2, 31, 33)))]
            payload = b"".join(bytes((0, setting)) + self._number() for setting in which)
            return frame(kind, rng.choice((0, 0, 1)), scope, payload) * times
        if kind == PING:
            return frame(kind, rng.choice((0, 1)), scope, bytes(8)) * times
        if kind == GOAWAY:
            return frame(kind, 0, scope, self._number() + self._number() + b"d" * rng.choice((0, 5, 16_000)))
        if kind == PRIORITY:
            return frame(kind, flags, stream, self._number() + b"\x10") * times
        if kind == PRIORITY_UPDATE:
            whole = self._number() + rng.choice(_PRIORITIES)
            return frame(kind, flags, scope, whole[: rng.choice((3, _LONGEST_FRAME, _LONGEST_FRAME))]) * times
        if kind == ALTSVC:
            return frame(kind, flags, rng.choice((0, stream)), rng.choice(_ALTERNATIVES))
        if kind == ORIGIN:
            return frame(kind, 0, scope, rng.choice(_ORIGINS))
        if rng.random() < 0.2:
            return frame(kind, flags, stream, bytes(_LONGEST_FRAME)) * min(times, 20)
        return frame(kind, flags, stream, rng.randbytes(rng.choice((0, 1, 5, 100)))) * times

    def _block(self) -> bytes:
        """A header block: well formed, or with any of HPACK's traps."""
        rng = self._rng
        block = rng.choice(_BLOCKS)
        for _ in range(rng.randrange(6)):
            indexed = bytes((rng.choice((0x80, 0x82, 0xBE, 0xC0, 0xFE)),)) * rng.choice((1, 1, 30, 2_000))
            huffman = b"\x40\x81" + rng.randbytes(1) + b"\x84" + rng.randbytes(4)
            block += rng.choice((self._field(), self._field(), indexed, rng.choice(_RESIZES), huffman))
        return block
