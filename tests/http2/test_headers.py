"""What gRPC says in headers: there and back, and whatever a peer says instead."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remsvc.http2.headers import (
    decode_binary,
    decode_message,
    decode_timeout,
    encode_message,
    encode_metadata,
    encode_timeout,
    is_grpc,
    status_headers,
)
from remsvc.status import StatusCode

_LONGEST_SECONDS = 99_999_999 * 3_600.0
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(text=_TEXT)
def test_a_message_comes_back(text: str) -> None:
    assert decode_message(encode_message(text)) == text


@given(text=st.text())
def test_a_message_travels_as_printable_ascii(text: str) -> None:
    assert all(0x20 <= octet < 0x7F for octet in encode_message(text))


@given(octets=st.binary() | st.lists(st.sampled_from([b"%", b"%4", b"%41", b"%zz", b"\xff"])).map(b"".join))
def test_any_bytes_are_some_message(octets: bytes) -> None:
    text = decode_message(octets)
    assert decode_message(encode_message(text)) == text


@given(seconds=st.floats(0, _LONGEST_SECONDS) | st.floats(0, 1e-6))
def test_a_time_limit_comes_back_and_is_never_shorter(seconds: float) -> None:
    value = encode_timeout(seconds)
    got = decode_timeout(value)
    assert len(value) <= 9
    # To the next unit of which eight digits are enough; never less, but for what a float cannot tell.
    assert got >= seconds * (1 - 1e-9) - 1e-9
    assert got <= seconds * (1 + 1.1e-4) + 1e-9


@pytest.mark.parametrize("seconds", [_LONGEST_SECONDS * 2, 1e300, math.inf])
def test_the_longest_time_limit_stands_for_all_that_are_longer(seconds: float) -> None:
    assert decode_timeout(encode_timeout(seconds)) == _LONGEST_SECONDS


@pytest.mark.parametrize("seconds", [0.0, -1.0, -math.inf])
def test_a_time_limit_that_is_over_is_the_shortest(seconds: float) -> None:
    assert decode_timeout(encode_timeout(seconds)) == 1e-9


_TIMEOUT_PARTS = [b"", b"1", b"99999999", b"100000000", b"S", b"m", b"-", b" ", b"\n", b"\xd9\xa1"]


@example(value=b"100000000S")
@given(value=st.binary(max_size=12) | st.lists(st.sampled_from(_TIMEOUT_PARTS)).map(b"".join))
def test_any_bytes_are_a_time_limit_or_refused(value: bytes) -> None:
    try:
        seconds = decode_timeout(value)
    except ValueError:
        return
    assert value[:-1].isdigit()
    assert len(value) <= 9
    assert 0 <= seconds <= _LONGEST_SECONDS


@given(value=st.binary())
def test_binary_metadata_comes_back(value: bytes) -> None:
    [(key, encoded)] = encode_metadata([("some-bin", value)])
    assert key == b"some-bin"
    assert decode_binary(encoded) == value
    assert decode_binary(encoded + b"=" * (-len(encoded) % 4)) == value


@given(value=st.binary() | st.text("ABab01+/=-_ ").map(str.encode))
def test_any_bytes_are_binary_metadata_or_refused(value: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_binary(value)


@given(content_type=st.binary() | st.sampled_from([b"application/grpc", b"application/grpc+proto"]))
def test_any_bytes_are_a_content_type(content_type: bytes) -> None:
    assert not is_grpc(content_type) or content_type.startswith(b"application/grpc")
    assert not is_grpc(b"application/grpc-web" + content_type)


@given(status=st.sampled_from(list(StatusCode)), message=_TEXT)
def test_a_status_says_its_number_and_its_message(status: StatusCode, message: str) -> None:
    headers = dict(status_headers(status, message, [("some-bin", b"\0")]))
    assert int(headers[b"grpc-status"]) == status
    assert decode_message(headers.get(b"grpc-message", b"")) == message
    assert headers[b"some-bin"] == b"AA"
