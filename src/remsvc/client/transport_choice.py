"""Chooses a client's transport: the one that the options name, or else the best one that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from remsvc.client.options import GRPC, HTTP2, TRANSPORTS, ConnectionOptions
from remsvc.client.transport import AsyncTransport, Transport
from remsvc.errors import ConfigurationError
from remsvc.http2 import engine_is_installed

if TYPE_CHECKING:
    import grpc.aio


def chosen_transport(options: ConnectionOptions) -> str:
    """``http2`` or ``grpc``. Raises :class:`ConfigurationError`."""
    if options.transport not in TRANSPORTS:
        raise ConfigurationError([f"transport {options.transport!r}: expected auto, http2 or grpc"])
    if options.transport == GRPC:
        return GRPC
    if engine_is_installed():
        return HTTP2
    if options.transport == HTTP2:
        raise ConfigurationError(
            ["transport 'http2': is not installed; pip install 'airflow-provider-remsvc[http2]'"]
        )
    return GRPC


def open_async_transport(options: ConnectionOptions) -> AsyncTransport:
    """A transport for the running event loop, which connects when first used.

    Raises:
        ConfigurationError: the options cannot be used.
    """
    if chosen_transport(options) == HTTP2:
        from remsvc.client.http2.aio import AsyncHttp2Transport

        return AsyncHttp2Transport(options)
    from remsvc.client.grpc_transport.aio import AsyncGrpcTransport

    return AsyncGrpcTransport.connecting(options)


def open_transport(options: ConnectionOptions) -> Transport:
    """A transport for blocking calls: otherwise as :func:`open_async_transport`."""
    if chosen_transport(options) == HTTP2:
        from remsvc.client.http2.blocking import Http2Transport

        return Http2Transport(options)
    from remsvc.client.grpc_transport.blocking import GrpcTransport

    return GrpcTransport(options)


def over_channel(channel: grpc.aio.Channel | AsyncTransport) -> AsyncTransport:
    """A transport that uses a gRPC channel and never closes it; ``channel`` itself where it is one."""
    if hasattr(channel, "readiness"):
        return cast("AsyncTransport", channel)
    from remsvc.client.grpc_transport.aio import AsyncGrpcTransport

    return AsyncGrpcTransport(channel, owned=False)
