"""``grpc.health.v1``: whether services are served, for load balancers and whoever else asks.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2

from remsvc.server.calls.call import Call
from remsvc.server.calls.methods import Method
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_LONGEST_REQUEST = 4 * 1024
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService:
    """Tells probes whether the server serves. All services have the same health, until it shuts down.

    Strangers may ask: probes come without credentials, and learn nothing but this.

    Args:
        services: the names of those that there are, beside the server as a whole.
        draining: done when the server is shutting down.
    """

    def __init__(self, services: Iterable[str], draining: asyncio.Future[None]) -> None:
        self._services = frozenset(("", *services))
        self._draining = draining

    def methods(self) -> tuple[Method, ...]:
        """The methods of the service."""
        request = health_pb2.HealthCheckRequest
        return (
            Method(f"/{SERVICE_NAME}/Check", request, _LONGEST_REQUEST, one=self._check, open_to_all=True),
            Method(f"/{SERVICE_NAME}/Watch", request, _LONGEST_REQUEST, many=self._watch, open_to_all=True),
        )

    async def _check(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            raise RefusedError(StatusCode.NOT_FOUND, "there is no such service")
        return health_pb2.HealthCheckResponse(status=self._status)

    async def _watch(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        known = request.service in self._services
        yield health_pb2.HealthCheckResponse(status=self._status if known else _SERVICE_UNKNOWN)
        if not self._draining.done():
            await asyncio.shield(self._draining)
            if known:
                yield health_pb2.HealthCheckResponse(status=self._status)
        raise RefusedError(StatusCode.UNAVAILABLE, "the server is shutting down")

    @property
    def _status(self) -> int:
        status: int = _NOT_SERVING if self._draining.done() else _SERVING
        return status
