"""The frame meter, against a parser that sees all frames at once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.http2.frames import HEADERS_WORK, PREFACE, FrameMeter
from tests.attacks.raw_http2 import CONTINUATION, DATA, END_HEADERS, HEADERS, PING, PUSH, frame
from tests.http2.pieces import in_pieces, sizes

_KINDS = st.sampled_from([DATA, HEADERS, HEADERS, CONTINUATION, CONTINUATION, PUSH, PING]) | st.integers(
    0, 255
)
_FRAMES = st.lists(
    st.builds(
        frame,
        _KINDS,
        st.sampled_from([0, END_HEADERS, 0xFF]) | st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=40),
    ),
    max_size=12,
)


@dataclass
class _Seen:
    """What a parser makes of frames whose last one may be cut off."""

    frames: int = 0
    in_header_block: bool = False
    waits: bool = False

    @classmethod
    def of(cls, data: bytes) -> _Seen:
        seen, position = cls(), 0
        while position < len(data):
            head = data[position : position + 9]
            if len(head) < 9:
                seen.waits = True
                break
            end = position + 9 + int.from_bytes(head[:3], "big")
            kind, flags = head[3], head[4]
            seen.frames += 1
            if kind in (HEADERS, PUSH):
                seen.in_header_block = not flags & END_HEADERS
            elif kind == CONTINUATION and flags & END_HEADERS:
                seen.in_header_block = False
            seen.waits = end > len(data) and kind != DATA
            position = end
        seen.waits = seen.waits or seen.in_header_block
        return seen


def _measured(meter: FrameMeter) -> _Seen:
    return _Seen(meter.frames, meter.in_header_block, meter.waits)


@given(frames=_FRAMES, cut=st.integers(0, 400), sizes=sizes)
def test_frames_in_any_pieces_are_seen_as_they_are(frames: list[bytes], cut: int, sizes: list[int]) -> None:
    data = b"".join(frames)[:cut]
    meter = FrameMeter(preface=False)
    for piece in in_pieces(data, sizes):
        assert meter.measure(piece, 1 << 30) == len(piece)
    assert _measured(meter) == _Seen.of(data)


@given(frames=_FRAMES, sizes=sizes, work=st.integers(1, 30))
def test_no_turn_begins_more_than_its_share(frames: list[bytes], sizes: list[int], work: int) -> None:
    data = PREFACE + b"".join(frames)
    meter = FrameMeter(preface=True)
    for piece in in_pieces(data, sizes):
        rest = piece
        while rest:
            before = meter.frames
            taken = meter.measure(rest, work)
            assert 0 < taken <= len(rest)
            assert meter.frames - before <= work
            rest = rest[taken:]
    assert _measured(meter) == _Seen.of(data[len(PREFACE) :])


@given(before=st.integers(0, 50), sizes=sizes, count=st.integers(1, 20))
def test_where_a_turn_ends_is_where_a_frame_begins(before: int, sizes: list[int], count: int) -> None:
    one = frame(HEADERS, END_HEADERS, 1, bytes(before))
    data = one * (count + 1)
    reached = FrameMeter(preface=False).measure(data, count * (HEADERS_WORK + (before >> 5)))
    assert reached == len(one) * count


@pytest.mark.parametrize("length", range(1, len(PREFACE)))
def test_a_preface_that_has_only_begun_is_waited_for(length: int) -> None:
    meter = FrameMeter(preface=True)
    meter.measure(PREFACE[:length], 100)
    assert meter.waits
    assert meter.frames == 0
    meter.measure(PREFACE[length:], 100)
    assert not meter.waits
