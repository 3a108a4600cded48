"""Channels: how a connection is made, kept alive and authenticated."""

from __future__ import annotations

import re
from collections.abc import Iterable

import grpc
import grpc.aio

from remsvc.client.options import ConnectionOptions
from remsvc.client.target import parse_target
from remsvc.client.tls import channel_credentials
from remsvc.errors import ConfigurationError

Metadata = tuple[tuple[str, str | bytes], ...]
MetadataItems = Iterable[tuple[str, str | bytes]]

MAX_RECEIVE_BYTES = 64 * 1024 * 1024
"""The longest answer accepted: the server's limit on output may be raised well above gRPC's 4 MiB."""

PING_TIMEOUT_MS = 15_000
"""A connection on which a ping is not answered for so long is dead."""

_KEY = re.compile(r"[0-9a-z_.-]+")


def open_async_channel(options: ConnectionOptions) -> grpc.aio.Channel:
    """A new channel for asyncio, bound to the running event loop. Connects when first used.

    Raises:
        ConfigurationError: the target, a file or the token cannot be used.
    """
    target, settings = _target(options), _settings(options)
    if options.tls:
        return grpc.aio.secure_channel(target, channel_credentials(options), options=settings)
    return grpc.aio.insecure_channel(target, options=settings)


def open_channel(options: ConnectionOptions) -> grpc.Channel:
    """A new channel for blocking calls. Connects when first used. Raises as :func:`open_async_channel`."""
    target, settings = _target(options), _settings(options)
    if options.tls:
        return grpc.secure_channel(target, channel_credentials(options), options=settings)
    return grpc.insecure_channel(target, options=settings)


def call_metadata(options: ConnectionOptions, extra: MetadataItems = ()) -> Metadata:
    """The metadata of a call: ``extra`` with its keys in lower case, and the token.

    The token wins: where there is one, ``authorization`` entries in ``extra`` are dropped.

    Raises:
        ConfigurationError: a key or value cannot travel. No value is shown: it may be a secret.
    """
    entries = [(key.lower(), value) for key, value in extra]
    for key, value in entries:
        _check_entry(key, value)
    if options.token is not None:
        _check_token(options.token)
        entries = [entry for entry in entries if entry[0] != "authorization"]
        entries.append(("authorization", f"Bearer {options.token}"))
    return tuple(entries)


def _target(options: ConnectionOptions) -> str:
    # With its scheme: a host that is called "unix" is not a socket's path.
    return f"dns:///{parse_target(options.target)}"


def _settings(options: ConnectionOptions) -> list[tuple[str, int]]:
    keepalive_ms = round(options.keepalive * 1000)
    return [
        # gRPC must never send a command again by itself: it could run twice.
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        ("grpc.keepalive_time_ms", keepalive_ms),
        # Which of the two counts depends on gRPC's version.
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        # Watching, a client sends nothing for hours; gRPC would ping only twice meanwhile.
        ("grpc.http2.max_pings_without_data", 0),
        # A pooled channel notices within seconds that its server is back (gRPC: up to two minutes).
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]


def _check_token(token: str) -> None:
    if not token:
        raise ConfigurationError(["token: is empty"])
    if token != token.strip() or not _is_printable(token):
        raise ConfigurationError(["token: expected printable ASCII characters without blanks around them"])


def _check_entry(key: str, value: str | bytes) -> None:
    if not _KEY.fullmatch(key) or key.startswith("grpc-"):
        raise ConfigurationError([f"metadata key {key!r}: expected letters, digits, '_', '-' and '.'"])
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise ConfigurationError([f"metadata {key!r}: expected bytes, as the key ends with -bin"])
        return
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not _is_printable(text):
        raise ConfigurationError([f"metadata {key!r}: expected a text of printable ASCII characters"])


def _is_printable(text: str) -> bool:
    return all(" " <= character <= "~" for character in text)
