"""Messages in the data of a stream, however it arrives."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.http2.messages import CompressedError, MessageError, MessageReader, TooLargeError, prefix
from tests.http2.pieces import in_pieces, sizes

_LIMIT = 100
_MESSAGES = st.lists(st.binary(max_size=_LIMIT) | st.just(bytes(_LIMIT)), max_size=10)


def _framed(messages: list[bytes]) -> bytes:
    return b"".join(prefix(len(message)) + message for message in messages)


def _taken(reader: MessageReader) -> list[bytes]:
    return list(iter(reader.take, None))


def _feed(reader: MessageReader, data: bytes, sizes: list[int]) -> None:
    for piece in in_pieces(data, sizes):
        reader.feed(piece)


@given(messages=_MESSAGES, sizes=sizes)
def test_messages_in_any_pieces_arrive_whole(messages: list[bytes], sizes: list[int]) -> None:
    reader = MessageReader(_LIMIT)
    _feed(reader, _framed(messages), sizes)
    assert _taken(reader) == messages
    assert not reader.within
    assert reader.wanted == 0


@given(messages=_MESSAGES, sizes=sizes, taken=st.integers(0, 10))
def test_what_is_whole_is_known_to_be_after_any_was_taken(
    messages: list[bytes], sizes: list[int], taken: int
) -> None:
    reader = MessageReader(_LIMIT)
    _feed(reader, _framed(messages), sizes)
    for _ in messages[:taken]:
        reader.take()
    assert reader.ready == (len(messages) > taken)
    assert not reader.within


@given(messages=_MESSAGES, last=st.binary(max_size=_LIMIT), missing=st.integers(1, 104), sizes=sizes)
def test_a_message_that_has_begun_is_known(
    messages: list[bytes], last: bytes, missing: int, sizes: list[int]
) -> None:
    whole = _framed([last])
    begun = whole[: max(len(whole) - missing, 0)]
    reader = MessageReader(_LIMIT)
    _feed(reader, _framed(messages) + begun, sizes)
    assert _taken(reader) == messages
    assert reader.within == bool(begun)
    assert reader.wanted == (len(last) if len(begun) >= 5 else 0)


_REFUSED = st.tuples(st.integers(1, 255), st.integers(0, 2**32 - 1), st.just(CompressedError)) | st.tuples(
    st.just(0), st.integers(_LIMIT + 1, 2**32 - 1), st.just(TooLargeError)
)


@given(messages=_MESSAGES, refused=_REFUSED, rest=st.binary(max_size=50), sizes=sizes)
def test_what_cannot_be_taken_is_known_by_its_first_bytes(
    messages: list[bytes], refused: tuple[int, int, type[MessageError]], rest: bytes, sizes: list[int]
) -> None:
    flag, size, expected = refused
    reader = MessageReader(_LIMIT)
    taken: list[bytes] = []
    with pytest.raises(expected):  # noqa: PT012
        _feed(reader, _framed(messages) + bytes((flag,)) + size.to_bytes(4, "big") + rest, sizes)
        while (message := reader.take()) is not None:
            taken.append(message)
    assert taken == messages


@given(data=st.binary(max_size=300), sizes=sizes)
def test_arbitrary_bytes_raise_nothing_else(data: bytes, sizes: list[int]) -> None:
    reader = MessageReader(_LIMIT)
    with contextlib.suppress(MessageError):
        _feed(reader, data, sizes)
        assert all(len(message) <= _LIMIT for message in iter(reader.take, None))
