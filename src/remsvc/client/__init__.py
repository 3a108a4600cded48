"""The client library: :class:`AsyncClient` for asyncio, :class:`Client` for everything else.

A name's module is loaded when the name is first used. So a program that needs only the options of a
connection, such as an Airflow worker that checks a task's parameters, does not wait until gRPC or protobuf
is loaded.

``examples/client`` shows how to run a command, how to start a job and follow it later, and how to cancel one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remsvc.client.aio import AsyncClient
    from remsvc.client.jobs import Job, JobSpec, JobState, OutputChunk, OutputSize, StateChange
    from remsvc.client.options import ConnectionOptions
    from remsvc.client.results import CommandResult, Pong, Status
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

_MODULES = {
    "aio": ("AsyncClient",),
    "jobs": ("Job", "JobSpec", "JobState", "OutputChunk", "OutputSize", "StateChange"),
    "options": ("ConnectionOptions",),
    "results": ("CommandResult", "Pong", "Status"),
    "sync": ("Client",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
