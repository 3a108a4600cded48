"""The metadata of a call: the token and what the caller adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.client import ConnectionOptions
from remsvc.client.metadata import call_metadata
from remsvc.errors import ConfigurationError
from tests.copied_tokens import COPIES, NOTHING_BUT

from .conftest import Connect
from .scripted_server import ScriptedServer

PLAIN = ConnectionOptions("localhost:1")
PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


def with_token(token: str) -> ConnectionOptions:
    return ConnectionOptions("localhost:1", token=token)


def test_the_token_wins_over_the_callers_authorization() -> None:
    extra = [("Authorization", "Bearer other"), ("X-Trace", "7"), ("AUTHORIZATION", "Basic x")]
    assert call_metadata(with_token("secret"), extra) == (
        ("x-trace", "7"),
        ("authorization", "Bearer secret"),
    )


def test_without_a_token_the_callers_authorization_stays() -> None:
    assert call_metadata(PLAIN, [("Authorization", "Bearer own")]) == (("authorization", "Bearer own"),)


def test_bytes_travel_under_bin_keys() -> None:
    assert call_metadata(PLAIN, [("Trace-Bin", b"\x00\xff")]) == (("trace-bin", b"\x00\xff"),)


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "sec\nret",
        "a\r\nx: y",
        "tökén",
        "a\0b",
        "a\x7f",
        "\ud800",
        "\ufeff",
        "Bearer ",
        "bearer",
        b"abc",
    ],
)
def test_a_token_that_cannot_travel_is_refused_and_not_shown(token: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        call_metadata(with_token(token))
    assert str(caught.value).startswith("token: ")
    assert len(str(caught.value).splitlines()) == 1
    assert len(token) < 3 or str(token).strip() in ("Bearer", "bearer") or str(token) not in str(caught.value)


@pytest.mark.parametrize("text", NOTHING_BUT)
def test_the_word_alone_is_no_token(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^token: the token after 'Bearer' is missing$"):
        call_metadata(with_token(text))


@pytest.mark.parametrize(("before", "after"), COPIES)
def test_what_surely_came_along_by_accident_is_left_out(before: str, after: str) -> None:
    assert call_metadata(with_token(f"{before}Bearerish token{after}")) == (
        ("authorization", "Bearer Bearerish token"),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", "x"),
        ("a b", "x"),
        ("schlüssel", "x"),
        ("a\n", "x"),
        (":path", "x"),
        ("grpc-timeout", "1S"),
        ("key", "s3cret\n"),
        ("key", "s3cret\x00"),
        ("key", "s3cretö"),
        ("key-bin", "s3cret"),
        ("key", b"s3cret\xff"),
        ("key", 5),
    ],
)
def test_metadata_that_cannot_travel_is_refused_without_its_value(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        call_metadata(PLAIN, [(key, value)])  # type: ignore[list-item]
    assert "metadata" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_token_is_not_shown_by_repr() -> None:
    assert "secret" not in repr(with_token("secret"))


def test_any_valid_token_and_metadata_reach_the_server_unchanged(
    scripted: Callable[..., ScriptedServer], connect: Connect
) -> None:
    seen: list[dict[str, str | bytes]] = []

    def ping(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(dict(context.invocation_metadata()))
        return request

    server = scripted(ping=ping)

    tokens = st.text(PRINTABLE, min_size=1, max_size=200).filter(lambda text: text.lower() != "bearer")

    @given(tokens, st.binary())
    def check(token: str, data: bytes) -> None:
        with connect(ConnectionOptions(server.target, token=token)) as client:
            client.ping(metadata=[("x-data-bin", data)])
        assert seen[-1]["authorization"] == f"Bearer {token}"
        assert seen[-1]["x-data-bin"] == data

    check()
