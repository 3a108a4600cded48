"""The RemSvc client: :class:`AsyncClient` for asyncio, :class:`Client` for everything else.

gRPC is loaded when a client is first named, so that ``remsvc.client.options`` stays cheap to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remsvc.client.jobs import Job, JobSpec, JobState, OutputChunk, OutputSize, StateChange
from remsvc.client.options import ConnectionOptions
from remsvc.client.results import CommandResult, Pong, Status

if TYPE_CHECKING:
    from remsvc.client.aio import AsyncClient
    from remsvc.client.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "CommandResult",
    "ConnectionOptions",
    "Job",
    "JobSpec",
    "JobState",
    "OutputChunk",
    "OutputSize",
    "Pong",
    "StateChange",
    "Status",
]


def __getattr__(name: str) -> Any:
    if name == "AsyncClient":
        from remsvc.client.aio import AsyncClient

        return AsyncClient
    if name == "Client":
        from remsvc.client.sync import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
