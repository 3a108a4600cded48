"""The interface of a server's transport, and the choice of one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from remsvc.grpc_environment import set_grpc_environment
from remsvc.server.calls.admission import Admission
from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Methods
from remsvc.server.transport_kinds import HTTP2

if TYPE_CHECKING:
    from remsvc.server.access import Access
    from remsvc.server.config import ServerConfig


class ServerTransport(Protocol):
    """Carries calls to the server: hands each one to :class:`~remsvc.server.calls.guard.Calls`."""

    async def start(self, host: str, port: int) -> str:
        """Start to accept connections.

        Returns:
            The address, as ``HOST:PORT``.

        Raises:
            ServeError: it cannot listen there.
        """

    async def ended(self) -> None:
        """Wait until it ends without having been stopped, after which the server cannot go on.

        Raises:
            TransportEndedError: it has.
        """

    async def stop(self, grace: float, at_once: asyncio.Future[str]) -> None:
        """Accept nothing more, and let the calls that run finish.

        Args:
            grace: seconds that they have for that. Then they are ended.
            at_once: once it is done, they are ended without waiting any longer.
        """


def create_transport(config: ServerConfig, methods: Methods, access: Access) -> ServerTransport:
    """The transport that ``config`` names; it still has to be started."""
    calls = Calls(access.verification, Admission(config.limits), config.limits.request_timeout)
    if config.transport == HTTP2:
        from remsvc.server.http2.server import Http2Server

        asks_owner = config.auth.peer_uids is not None
        return Http2Server(config.limits, calls, methods, lambda: access.tls, asks_owner=asks_owner)
    set_grpc_environment(server=True)
    from remsvc.server.grpc_transport.server import GrpcServer

    return GrpcServer(config.limits, calls, methods, lambda: access.tls)
