"""The RemSvc client: :class:`AsyncClient` for asyncio, :class:`Client` for everything else."""

from remsvc.client.aio import AsyncClient
from remsvc.client.options import ConnectionOptions
from remsvc.client.results import CommandResult, Pong, Status
from remsvc.client.sync import Client

__all__ = ["AsyncClient", "Client", "CommandResult", "ConnectionOptions", "Pong", "Status"]
