"""Frames survive any cut of the byte stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remsvc.execution.supervisor.frames import FrameReader, encode_frame

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
_headers = st.dictionaries(st.text().filter(lambda key: key != "blobs"), _json, max_size=4)
_frames = st.lists(st.tuples(_headers, st.lists(st.binary(max_size=200), max_size=3)), max_size=5)


@given(frames=_frames, data=st.data())
def test_whatever_the_pieces_the_frames_come_out_as_they_went_in(
    frames: list[tuple[dict[str, object], list[bytes]]], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame(header, blobs) for header, blobs in frames)
    reader = FrameReader()
    received = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += list(reader.feed(stream[:size]))
        stream = stream[size:]
    assert received == frames


@given(frames=_frames, data=st.data())
def test_a_frame_that_was_handed_out_does_not_come_again(
    frames: list[tuple[dict[str, object], list[bytes]]], data: st.DataObject
) -> None:
    """Also where whoever takes them fails, and goes on with what comes next."""
    stream = b"".join(encode_frame(header, blobs) for header, blobs in frames)
    reader = FrameReader()
    received = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        for frame in reader.feed(stream[:size]):
            received.append(frame)
            if data.draw(st.booleans()):
                break
        stream = stream[size:]
    while len(received) < len(frames):
        received.append(next(reader.feed(b"")))
    assert received == frames
    assert list(reader.feed(b"")) == []
