"""``[limits]``: what the server takes from its callers' connections, calls and messages."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from remsvc.server.bounds.rate_limit import Rate
from remsvc.server.settings.schema import Key, Section
from remsvc.server.settings.settings import Settings

# Descriptors that the server needs for itself: log, audit, journal, outputs, the supervisor.
_OWN_FILES = 256
_MAX_MS = 2**31 - 1
_MAX_BYTES = 2**40
_FAILURES = Rate(100, 60.0)
_CALLS = Rate(5000, 1.0)

CALLER_LIMITS_SECTION = Section(
    "limits",
    (
        Key("max_connections"),
        Key("max_streams"),
        Key("max_calls"),
        Key("max_metadata_bytes"),
        Key("max_headers"),
        Key("max_message_bytes"),
        Key("max_request_bytes"),
        Key("call_rate"),
        Key("max_unread_bytes"),
        Key("max_unsent_bytes"),
        Key("max_unsent_bytes_total"),
        Key("handshake_timeout_ms"),
        Key("header_timeout_ms"),
        Key("request_timeout_ms"),
        Key("connection_idle_ms"),
        Key("stream_idle_ms"),
        Key("answer_timeout_ms"),
        Key("failed_authentications"),
    ),
)
"""The keys of ``[limits]`` on callers; those on commands are the commands' own."""


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Limits on callers. Times are in seconds.

    Attributes:
        max_connections: open at the same time; one more is closed at once.
        max_streams: calls at the same time on one connection.
        max_calls: calls at the same time on all connections; one more is ``RESOURCE_EXHAUSTED``.
        max_metadata_bytes: of one call's metadata.
        max_headers: entries of one call's metadata, those of gRPC itself included.
        max_message_bytes: of one message from a caller.
        max_request_bytes: of requests that are being answered, of more than 4 KiB each.
        call_rate: how often an identity may call, whatever it calls.
        max_unread_bytes: of long messages that are on their way, on all connections.
        max_unsent_bytes: of answers that wait to be taken, on one connection; then calls on it wait.
        max_unsent_bytes_total: the same on all connections, with what waits to be written; then the largest
            answer that was not written yet is given up, of the connection that has most. Where all were
            written, the connection is closed on which one has waited for longest.
        handshake_timeout: until TLS and HTTP/2 must have been set up.
        header_timeout: from the beginning of a call's metadata, or of any frame without data, to its end.
        request_timeout: from a call's metadata to the end of the one request that it has.
        connection_idle: without any call, after which a connection is closed.
        stream_idle: that a stream waits for its caller, to send a command or to take an answer.
        answer_timeout: that the answer to a call which has ended waits to be taken.
        failed_authentications: answered, logged and audited one by one, for each address.
    """

    max_connections: int = 1000
    max_streams: int = 2000
    max_calls: int = 5000
    max_metadata_bytes: int = 16 * 1024
    max_headers: int = 256
    max_message_bytes: int = 16 * 1024 * 1024
    max_request_bytes: int = 8 * 1024 * 1024
    call_rate: Rate = _CALLS
    max_unread_bytes: int = 16 * 1024 * 1024
    max_unsent_bytes: int = 4 * 1024 * 1024
    max_unsent_bytes_total: int = 24 * 1024 * 1024
    handshake_timeout: float = 10.0
    header_timeout: float = 10.0
    request_timeout: float = 30.0
    connection_idle: float = 900.0
    stream_idle: float = 3600.0
    answer_timeout: float = 60.0
    failed_authentications: Rate = _FAILURES


def read_limits(settings: Settings) -> LimitsConfig:
    """The ``[limits]`` on callers. Problems go to ``settings``."""
    default = LimitsConfig()

    def number(key: str, low: int, high: int) -> int:
        return settings.integer("limits", key, getattr(default, key), low, high)

    def seconds(key: str) -> float:
        return settings.integer("limits", f"{key}_ms", round(getattr(default, key) * 1000), 1, _MAX_MS) / 1000

    return LimitsConfig(
        max_connections=_fitting(settings, number("max_connections", 1, 1_000_000)),
        max_streams=number("max_streams", 1, 1_000_000),
        max_calls=number("max_calls", 1, 1_000_000),
        max_metadata_bytes=number("max_metadata_bytes", 1024, 1024 * 1024),
        max_headers=number("max_headers", 16, 10_000),
        max_message_bytes=number("max_message_bytes", 1024, 1024 * 1024 * 1024),
        max_request_bytes=number("max_request_bytes", 4 * 1024 * 1024, _MAX_BYTES),
        call_rate=_read_rate(settings, "call_rate", default.call_rate),
        max_unread_bytes=number("max_unread_bytes", 64 * 1024, _MAX_BYTES),
        max_unsent_bytes=number("max_unsent_bytes", 64 * 1024, _MAX_BYTES),
        max_unsent_bytes_total=number("max_unsent_bytes_total", 64 * 1024, _MAX_BYTES),
        handshake_timeout=seconds("handshake_timeout"),
        header_timeout=seconds("header_timeout"),
        request_timeout=seconds("request_timeout"),
        connection_idle=seconds("connection_idle"),
        stream_idle=seconds("stream_idle"),
        answer_timeout=seconds("answer_timeout"),
        failed_authentications=_read_rate(settings, "failed_authentications", default.failed_authentications),
    )


def _read_rate(settings: Settings, key: str, default: Rate) -> Rate:
    value = settings.given("limits", key)
    if value is None:
        return default
    if rate := Rate.parse(value.text):
        return rate
    settings.report_value(value, "expected a rate, such as 100/m (per second s, minute m, hour h)")
    return default


def _fitting(settings: Settings, wanted: int) -> int:
    """As many connections as leave descriptors for the rest of the server."""
    if sys.platform == "win32":
        return wanted
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(files - _OWN_FILES, files // 2)
    if files == resource.RLIM_INFINITY or wanted <= room:
        return wanted
    if (value := settings.given("limits", "max_connections")) is not None:
        settings.warnings.append(f"{value.where}: only {room}, because the server may open {files} files")
    return room
