"""Every shape of connection that the documentation promises, and every way to get it wrong."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from airflow.sdk import Connection
from tests.copied_tokens import COPIES, NOTHING_BUT

from remsvc_provider.hooks.remsvc import RemSvcHook
from remsvc_provider.version_compat import AirflowException

TOKEN = "s3cret-Tok3n/with+signs=="


@pytest.mark.parametrize("encode", [str, quote], ids=["raw", "encoded"])
@pytest.mark.parametrize(
    ("extra", "tls", "ca", "token"),
    [
        ("{}", False, None, None),
        (f'{{"bearer_token":"{TOKEN}"}}', False, None, TOKEN),
        (f'{{"use_ssl":true,"bearer_token":"{TOKEN}"}}', True, None, TOKEN),
        (
            f'{{"use_ssl": true, "ca_cert_path": "/etc/ssl/my ca.pem", "bearer_token": "{TOKEN}"}}',
            True,
            Path("/etc/ssl/my ca.pem"),
            TOKEN,
        ),
    ],
    ids=["empty", "token", "tls", "tls-ca"],
)
def test_uri_forms(connect, encode, extra, tls, ca, token):
    options = RemSvcHook(connect(f"remsvc://host:50051?extra={encode(extra)}")).options
    assert (options.target, options.tls, options.ca_cert, options.token) == ("host:50051", tls, ca, token)


def test_raw_token_with_an_ampersand(connect):
    token = "a&b=c&d/e?f@g:h"
    options = RemSvcHook(connect(f'remsvc://host?extra={{"bearer_token":"{token}","use_ssl":true}}')).options
    assert (options.token, options.tls) == (token, True)


def test_encoded_token_of_all_printable_characters(connect):
    token = "".join(map(chr, range(0x21, 0x7F)))
    extra = quote(json.dumps({"bearer_token": token}), safe="")
    assert RemSvcHook(connect(f"remsvc://host?extra={extra}")).options.token == token


def test_plain_query_parameters(connect):
    uri = "remsvc://host?use_ssl=true&bearer_token=abcdef&ca_cert_path=%2Fca.pem"
    options = RemSvcHook(connect(uri)).options
    assert (options.tls, options.token, options.ca_cert) == (True, "abcdef", Path("/ca.pem"))


def test_json_connection_with_all_fields(connect):
    extra = {
        "use_ssl": True,
        "ca_cert_path": "/ca.pem",
        "bearer_token": TOKEN,
        "client_cert_path": "/client.pem",
        "client_key_path": "/client.key",
    }
    value = json.dumps({"conn_type": "remsvc", "host": "host", "port": 1234, "extra": extra})
    options = RemSvcHook(connect(value)).options
    assert options.target == "host:1234"
    assert options.tls
    assert options.ca_cert == Path("/ca.pem")
    assert (options.client_cert, options.client_key) == (Path("/client.pem"), Path("/client.key"))
    assert options.token == TOKEN


def test_uri_form_survives_airflows_own_round_trip(connect, monkeypatch):
    connection = Connection.from_uri(f'remsvc://host?extra={{"bearer_token":"{TOKEN}"}}', conn_id="x")
    assert RemSvcHook(connect(connection.get_uri())).options.token == TOKEN


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        ("true", True),
        ("True", True),
        ("1", True),
        (1, True),
        ("yes", True),
        (False, False),
        ("false", False),
        ("0", False),
        (0, False),
        ("", False),
        (None, False),
    ],
)
def test_use_ssl_as_the_form_and_uris_write_it(connect, value, expected):
    connection = {"conn_type": "remsvc", "host": "host", "extra": {"use_ssl": value}}
    assert RemSvcHook(connect(json.dumps(connection))).options.tls is expected


def test_empty_form_fields_mean_left_out(connect):
    extra = {
        "use_ssl": False,
        "ca_cert_path": "",
        "bearer_token": "",
        "client_cert_path": "",
        "client_key_path": "",
    }
    options = RemSvcHook(connect(json.dumps({"conn_type": "remsvc", "host": "h", "extra": extra}))).options
    assert (options.ca_cert, options.token, options.client_cert, options.client_key) == (None,) * 4


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("remsvc://host", "host:50051"),
        ("remsvc://host:1", "host:1"),
        ("remsvc://[::1]", "[::1]:50051"),
        ("remsvc://[2001:db8::7]:60000", "[2001:db8::7]:60000"),
    ],
)
def test_targets(connect, uri, target):
    assert RemSvcHook(connect(uri)).options.target == target


@pytest.mark.parametrize("host", ["::1", "[::1]", " ::1 "])
def test_ipv6_host_field(connect, host):
    connection = {"conn_type": "remsvc", "host": host, "port": 50051}
    assert RemSvcHook(connect(json.dumps(connection))).options.target == "[::1]:50051"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ["host is missing"]),
        ({"host": " "}, ["host is missing"]),
        ({"host": "host:50051"}, ["host", "'host:50051'", "port has its own field"]),
        ({"host": "https://host"}, ["host", "'https://host'"]),
        ({"host": "a b"}, ["host", "a b"]),
        ({"host": "host", "port": 70000}, ["port", "70000", "1 to 65535"]),
        ({"host": "host", "extra": {"use_ssl": "maybe"}}, ["use_ssl", "'maybe'", "true or false"]),
        ({"host": "host", "extra": {"use_ssl": [1]}}, ["use_ssl", "true or false"]),
        ({"host": "host", "extra": {"ca_cert_path": 5}}, ["ca_cert_path", "5", "path of a PEM file"]),
        ({"host": "host", "extra": {"bearer_token": [TOKEN]}}, ["bearer_token", "list", "text"]),
        ({"host": "host", "extra": {"bearer_token": TOKEN + "\u20ac"}}, ["bearer_token", "printable ASCII"]),
        ({"host": "host", "extra": {"bearer_token": TOKEN + "\nx"}}, ["bearer_token", "one token"]),
        ({"host": "host", "extra": {"bearer_token": "Bearer "}}, ["bearer_token", "is missing"]),
        ({"host": "host", "extra": {"http_connect": "maybe"}}, ["http_connect", "'maybe'", "true or false"]),
        ({"host": "host", "extra": {"client_cert_path": "/c.pem"}}, ["client_key_path is missing"]),
        ({"host": "host", "extra": {"client_key_path": "/c.key"}}, ["client_cert_path is missing"]),
    ],
)
def test_what_cannot_be_used_is_named(connect, fields, words):
    hook = RemSvcHook(connect(json.dumps({"conn_type": "remsvc", **fields})))
    with pytest.raises(AirflowException) as caught:
        _ = hook.options
    text = str(caught.value)
    assert "connection 'remsvc_test'" in text
    assert TOKEN not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "extra",
    [
        f'{{"bearer_token":"{TOKEN}"',
        f'{{"bearer_token":"{TOKEN}#fragment"}}',
        f'["{TOKEN}"]',
        TOKEN,
    ],
)
def test_malformed_extra_in_a_uri_says_so_without_the_token(connect, extra):
    hook = RemSvcHook(connect(f"remsvc://host?extra={extra}"))
    with pytest.raises(AirflowException, match=r"connection 'remsvc_test': extra .*JSON") as caught:
        _ = hook.options
    assert TOKEN not in str(caught.value)


async def test_errors_are_the_same_in_an_event_loop(connect):
    with pytest.raises(AirflowException, match="extra use_ssl is 'maybe'; expected true or false"):
        await RemSvcHook(connect("remsvc://host?use_ssl=maybe")).get_async_conn()


def test_settings_without_effect_are_mentioned(connect, capsys):
    _ = RemSvcHook(connect("remsvc://host?usessl=true&ca_cert_path=%2Fca.pem")).options
    log = capsys.readouterr().out
    assert "'usessl' not known and ignored" in log
    assert "ca_cert_path ignored, because use_ssl is not true" in log


@pytest.mark.parametrize(("before", "after"), COPIES)
@pytest.mark.parametrize("nested", [False, True])
def test_accidents_around_a_token(connect, before, after, nested):
    """A line end, a byte order mark or the word of the header came along when it was copied."""
    extra = {"bearer_token": f"{before}{TOKEN}{after}"}
    if nested:
        value = f"remsvc://host?extra={quote(json.dumps(extra), safe='')}"
    else:
        value = json.dumps({"conn_type": "remsvc", "host": "host", "extra": extra})
    hook = RemSvcHook(connect(value))
    assert hook.options.token == TOKEN
    assert hook.get_call_metadata() == [("authorization", f"Bearer {TOKEN}")]


@pytest.mark.parametrize("written", NOTHING_BUT)
def test_the_word_of_the_header_alone_is_no_token(connect, written):
    """Also where the extras are nested, and a space may have been a plus."""
    extra = quote(json.dumps({"bearer_token": written}), safe="")
    hook = RemSvcHook(connect(f"remsvc://host?extra={extra}"))
    with pytest.raises(AirflowException, match="extra bearer_token: the token after 'Bearer' is missing"):
        _ = hook.options


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"login": "airflow"}, "login not used and ignored; the token goes into extra bearer_token"),
        ({"login": "airflow", "password": "hunter-two"}, "login and password not used and ignored"),
        ({"schema": "public"}, "schema not used and ignored"),
    ],
)
def test_fields_without_effect_are_mentioned(connect, capsys, fields, words):
    _ = RemSvcHook(connect(json.dumps({"conn_type": "remsvc", "host": "host", **fields}))).options
    log = capsys.readouterr().out
    assert words in log
    assert "hunter-two" not in log


@pytest.mark.parametrize(
    ("extra", "proxy"),
    [
        ({}, None),
        ({"http_connect": ""}, None),
        ({"http_connect": None}, None),
        ({"http_connect": True}, True),
        ({"http_connect": "true"}, True),
        ({"http_connect": False}, False),
        ({"http_connect": "no"}, False),
    ],
)
def test_proxy(connect, extra, proxy):
    value = json.dumps({"conn_type": "remsvc", "host": "host", "extra": extra})
    assert RemSvcHook(connect(value)).options.proxy is proxy


@pytest.mark.parametrize(("extra", "transport"), [({}, "auto"), ({"transport": ""}, "auto")])
def test_transport_left_out(connect, extra, transport):
    assert RemSvcHook(connect(f"remsvc://host?extra={json.dumps(extra)}")).options.transport == transport


@pytest.mark.parametrize("transport", ["auto", "http2", "grpc"])
def test_transport(connect, transport):
    assert RemSvcHook(connect(f"remsvc://host?transport={transport}")).options.transport == transport


def test_a_transport_that_does_not_exist(connect):
    with pytest.raises(AirflowException, match="extra transport is 'pigeon'; expected auto, http2, grpc"):
        _ = RemSvcHook(connect("remsvc://host?transport=pigeon")).options
