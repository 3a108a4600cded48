"""gRPC's server as a transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc.aio

from remsvc.errors import ServeError, TransportEndedError
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Methods
from remsvc.server.grpc_transport.connection_guard import ConnectionGuard
from remsvc.server.grpc_transport.handlers import Handlers
from remsvc.server.grpc_transport.tls import server_credentials
from remsvc.server.listen_fault import find_listen_fault, listen_fault
from remsvc.server.tls.config import TlsConfig
from remsvc.time_limit import TimeLimit

# Calls that wait to be taken by Python. Beyond, gRPC answers CANCELLED, which tells a client nothing; the
# more there may be, the longer everybody waits while a peer begins calls and cancels them.
_PENDING = 2500
# After the grace: calls are cancelled, and their commands killed.
_END_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_LIBRARYS_OWN_LIMIT = 4 * 1024**2  # of a message, where it is not told another one
_CHANNEL_OPTIONS = (
    # Two servers on one port would share its calls at random.
    ("grpc.so_reuseport", 0),
    # Bit 0: what is not compressed. A message of a few bytes must not become one of many millions, and that
    # before it is known who sends it.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_send_message_length", -1),
    # A client that vanished without a word is noticed within about a minute, and its command ended.
    ("grpc.keepalive_time_ms", 40_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


class GrpcServer:
    """Carries calls with gRPC's library: a :class:`~remsvc.server.transport.ServerTransport`.

    Args:
        limits: on connections and calls.
        calls: answers what comes.
        methods: that can be called.
        tls: what the next connection is encrypted with; None for plaintext.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        calls: Calls,
        methods: Methods,
        tls: Callable[[], TlsConfig | None],
    ) -> None:
        self._limits = limits
        self._credentials = server_credentials(tls)
        self._guard = ConnectionGuard(limits)
        self._server = grpc.aio.server(
            handlers=(Handlers(methods, calls, self._guard, limits.stream_idle),),
            options=(*_CHANNEL_OPTIONS, *_options(limits, methods)),
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, host: str, port: int) -> str:
        address = self._listen(host, port)
        await self._server.start()
        port = int(address.rpartition(":")[2])
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._guard.run(port)), loop.create_task(self._terminated())]
        return address

    async def ended(self) -> None:
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        error = None if (task := done.pop()).cancelled() else task.exception()
        raise TransportEndedError("gRPC's server has ended by itself") from error

    async def stop(self, grace: float, at_once: asyncio.Future[str]) -> None:
        stopping = asyncio.ensure_future(self._server.stop(grace))
        either: set[asyncio.Future[Any]] = {stopping, at_once}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await self._server.stop(0)
        with suppress(TimeoutError), TimeLimit(_END_SECONDS):
            await stopping
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _terminated(self) -> None:
        """Wait until gRPC's server has ended. Raises what it ended of."""
        # Without a time limit gRPC waits until the last call has ended as well, which can take for ever.
        # When the limit is reached it tells of what has broken in the meantime.
        while await self._server.wait_for_termination(_LOOK_SECONDS):
            pass

    def _listen(self, host: str, port: int) -> str:
        shown = f"[{host}]" if ":" in host else host
        try:
            if self._credentials is None:
                bound = self._server.add_insecure_port(f"{shown}:{port}")
            else:
                bound = self._server.add_secure_port(f"{shown}:{port}", self._credentials)
        except RuntimeError as error:  # gRPC does not say why
            if (cause := find_listen_fault(host, port)) is not None:
                raise ServeError(listen_fault(host, port, cause)) from error
            raise ServeError(
                f"cannot listen on {shown}:{port}: the address is free, but gRPC does not take it"
                + (", or not the files in [tls]" if self._credentials is not None else "")
            ) from error
        return f"{shown}:{bound}"


def _options(limits: LimitsConfig, methods: Methods) -> tuple[tuple[str, int], ...]:
    """gRPC's form of what gRPC itself can limit."""
    handshake_ms = round(limits.handshake_timeout * 1000)
    longest_request = max(_LIBRARYS_OWN_LIMIT, *(method.longest_request for method in methods.values()))
    return (
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_concurrent_streams", limits.max_streams),
        # Up to the first of the two always, from there to the second by chance: one is enough.
        ("grpc.max_metadata_size", limits.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_metadata_bytes),
        # Of all methods alike, strangers' too: what the one with the largest requests needs.
        ("grpc.max_receive_message_length", min(limits.max_message_bytes, longest_request)),
        ("grpc.server_handshake_timeout_ms", handshake_ms),
        # Limits on streams and metadata hold once the peer has acknowledged them.
        ("grpc.http2.settings_timeout", handshake_ms),
        ("grpc.server.max_pending_requests", _PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING),
        ("grpc.max_connection_idle_ms", round(limits.connection_idle * 1000)),
    )
