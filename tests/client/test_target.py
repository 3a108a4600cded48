"""The address of a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.client.target import Target, parse_target
from remsvc.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:50051", "localhost", 50051),
        ("build7.example.com:1", "build7.example.com", 1),
        ("build7.example.com.:65535", "build7.example.com.", 65535),
        ("build_7:50051", "build_7", 50051),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]:50051", "::1", 50051),
        ("[fe80::1%eth0]:50051", "fe80::1%eth0", 50051),
        ("localhost", "localhost", 50051),
        ("[::1]", "::1", 50051),
        ("unix:50051", "unix", 50051),
        ("3com.example:7", "3com.example", 7),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    assert parse_target(text) == Target(host, port)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the host is missing"),
        (":50051", "the host is missing"),
        ("host:", "the port must be 1 to 65535, not ''"),
        ("host:0", "the port must be 1 to 65535, not '0'"),
        ("host:65536", "the port must be 1 to 65535, not '65536'"),
        ("host:-1", "not '-1'"),
        ("host:٣", "the port must be"),
        ("host:grpc", "not 'grpc'"),
        ("host:" + "9" * 5000, "the port must be"),
        ("::1", "an IPv6 address needs brackets"),
        ("::1:50051", "an IPv6 address needs brackets"),
        ("[::1", "an IPv6 address is written [ADDRESS]:PORT"),
        ("[::1]50051", "an IPv6 address is written [ADDRESS]:PORT"),
        ("[::1]:", "the port must be"),
        ("[localhost]:1", "'localhost' is not an IPv6 address"),
        ("256.0.0.1:1", "is not an IPv4 address"),
        ("1.2.3:1", "is not an IPv4 address"),
        ("https://host:1", "leave out the scheme"),
        ("dns:///host:1", "leave out the scheme"),
        ("my host:1", "'my host' is not a host name"),
        ("host/path", "is not a host name"),
        ("user@host:1", "is not a host name"),
        ("-host:1", "is not a host name"),
        ("a..b:1", "is not a host name"),
        ("a" * 64 + ":1", "is not a host name"),
        ("höst:1", "xn--"),
        ("host\n:1", "is not a host name"),
        ("host:1\n", "the port must be"),
    ],
)
def test_what_is_no_address_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_target(text)
    message = str(caught.value)
    assert reason in message
    assert "expected HOST:PORT" in message
    assert len(message.splitlines()) == 1


@given(st.one_of(st.text(), st.text(alphabet="ab1.:[]-_%/\n 0")))
def test_any_text_is_an_address_or_refused_in_one_line(text: str) -> None:
    problems: tuple[str, ...] = ()
    try:
        target = parse_target(text)
    except ConfigurationError as error:
        problems = error.problems
    if problems:
        assert len(problems) == len(problems[0].splitlines()) == 1
    else:
        assert 1 <= target.port <= 65535
        assert parse_target(str(target)) == target
        assert not any(character.isspace() or character in "/@" for character in str(target))


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_address_is_read(address: object, port: int) -> None:
    target = Target(str(address), port)
    assert parse_target(str(target)) == target
