"""Makes gRPC's channels, with the settings by which their connections are made and kept alive."""

from __future__ import annotations

import grpc
import grpc.aio

from remsvc.client.options import ConnectionOptions
from remsvc.client.target import parse_target
from remsvc.client.tls import client_pair, trusted_authorities
from remsvc.client.transport import (
    FIRST_RECONNECT_PAUSE,
    LONGEST_RECONNECT_PAUSE,
    MAX_RECEIVE_BYTES,
    PING_TIMEOUT,
)


def open_async_channel(options: ConnectionOptions) -> grpc.aio.Channel:
    """A new channel for asyncio, bound to the running event loop. Connects when first used.

    Raises:
        ConfigurationError: the target, a file or the token cannot be used.
    """
    target, settings = _target(options), _settings(options)
    if options.tls:
        return grpc.aio.secure_channel(target, _credentials(options), options=settings)
    return grpc.aio.insecure_channel(target, options=settings)


def open_channel(options: ConnectionOptions, *more: tuple[str, int]) -> grpc.Channel:
    """A new channel for blocking calls. Connects when first used. Raises as :func:`open_async_channel`.

    Args:
        options: what to connect to, and how.
        more: further settings for gRPC.
    """
    target, settings = _target(options), [*_settings(options), *more]
    if options.tls:
        return grpc.secure_channel(target, _credentials(options), options=settings)
    return grpc.insecure_channel(target, options=settings)


def _credentials(options: ConnectionOptions) -> grpc.ChannelCredentials:
    roots, pair = trusted_authorities(options), client_pair(options)
    return (
        grpc.ssl_channel_credentials(roots, pair.key, pair.chain)
        if pair
        else grpc.ssl_channel_credentials(roots)
    )


def _target(options: ConnectionOptions) -> str:
    # With its scheme: a host that is called "unix" is not a socket's path.
    return f"dns:///{parse_target(options.target)}"


def _settings(options: ConnectionOptions) -> list[tuple[str, int]]:
    keepalive_ms, ping_timeout_ms = round(options.keepalive * 1000), round(PING_TIMEOUT * 1000)
    return [
        # Without it, gRPC hands a token in the clear to whatever proxy the environment names.
        ("grpc.enable_http_proxy", int(options.may_use_proxy)),
        # gRPC must never send a command again by itself: it could run twice.
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        ("grpc.keepalive_time_ms", keepalive_ms),
        # Which of the two counts depends on gRPC's version.
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        # Watching, a client sends nothing for hours; gRPC would ping only twice meanwhile.
        ("grpc.http2.max_pings_without_data", 0),
        # A pooled channel notices within seconds that its server is back (gRPC: up to two minutes).
        ("grpc.initial_reconnect_backoff_ms", round(FIRST_RECONNECT_PAUSE * 1000)),
        ("grpc.max_reconnect_backoff_ms", round(LONGEST_RECONNECT_PAUSE * 1000)),
    ]
