"""Noticing that gRPC's server has ended."""

from __future__ import annotations

import grpc.aio

_LOOK_SECONDS = 1.0


async def wait_until_ended(server: grpc.aio.Server) -> None:
    """Wait until a server has ended, because it was stopped or by itself.

    Raises:
        Exception: what it ended of.
    """
    # Without a time limit gRPC waits until the last call has ended as well, which can take for ever. When
    # the limit is reached it tells of what has broken in the meantime.
    while await server.wait_for_termination(_LOOK_SECONDS):
        pass
