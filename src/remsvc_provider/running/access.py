"""Calls the server of a run's jobs, with the credentials that the Airflow connection has now.

Somebody may replace a token while a command runs, and the server then ends the watch. The connection is
read again, and the watch goes on with the token that it has now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

from remsvc.client import AsyncClient
from remsvc.client.options import ConnectionOptions
from remsvc.errors import UnauthenticatedError
from remsvc_provider.running.channels import pooled_transport

T = TypeVar("T")

_PLACE = {"target": "host and port", "tls": "use_ssl", "ca_cert": "ca_cert_path"}
"""What says where credentials are sent, and how protected: options, and the connection's fields."""
Reread = Callable[[], Awaitable[ConnectionOptions]]


class ServerAccess:
    """One run's client, which is replaced when its credentials are. :meth:`close` it.

    Args:
        options: what the connection said when the run began.
        reread: tells what it says now.
        report: called with a line for the task's log.
        alone: use a connection of its own, not the one that everything in the event loop shares.
    """

    def __init__(
        self, options: ConnectionOptions, reread: Reread, report: Callable[[str], None], *, alone: bool
    ) -> None:
        self._options = options
        self._reread = reread
        self._report = report
        self._alone = alone
        self._pooled = ExitStack()
        self._clients = [self._open()]
        self._renewing = asyncio.Lock()

    @property
    def target(self) -> str:
        """The server, ``host:port``."""
        return self._options.target

    async def call(self, call: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """What ``call`` gives; made again where credentials are refused and the connection has others.

        Raises:
            UnauthenticatedError: those that the connection has now are refused, or are for another
                server than this one.
            ServerError: whatever else fails.
        """
        while True:
            client = self._clients[-1]
            try:
                return await call(client)
            except UnauthenticatedError as error:
                if not await self._renew(client, error):
                    raise

    async def close(self) -> None:
        """Release what is held here."""
        clients, self._clients = self._clients, []
        try:
            for client in clients:
                await client.close()
        finally:
            self._pooled.close()

    def _open(self) -> AsyncClient:
        # Commands of version 1 never go over this connection: its frequent pings, which find out that
        # it is dead, would make a server without jobs break their stream.
        frequent = self._options.for_jobs()
        if self._alone:
            return AsyncClient(frequent)
        return AsyncClient.over(self._pooled.enter_context(pooled_transport(frequent)), frequent)

    async def _renew(self, refused: AsyncClient, error: UnauthenticatedError) -> bool:
        """Whether there are other credentials now than those of ``refused``."""
        async with self._renewing:
            if refused is not self._clients[-1]:
                return True  # another command of this run was refused as well, and came first
            try:
                now = await self._reread()
            except Exception as problem:  # noqa: BLE001 - whatever Airflow raises; the refusal is what is told
                self._report(f"{error}; the connection cannot be read again: {problem}")
                return False
            # The jobs are on the server that the connection led to. What it has now is another server's
            # secret, or is meant for a way there that is better protected.
            if other := ", ".join(_differences(self._options, now)):
                details = (
                    f"{error.details}; the connection has changed since the task began ({other}): what it "
                    f"has now is not sent to this server"
                )
                raise UnauthenticatedError(error.code, details, error.target) from error
            options = replace(
                self._options, token=now.token, client_cert=now.client_cert, client_key=now.client_key
            )
            if options == self._options:
                return False
            self._report(f"{error}; the connection has other credentials now, which are used from here on")
            self._options = options
            # What runs side by side with the old ones is not broken off: the server decides.
            self._clients.append(self._open())
            return True


def _differences(before: ConnectionOptions, now: ConnectionOptions) -> list[str]:
    """What has changed of where credentials are sent, for a person."""
    return [
        f"{field}: was {getattr(before, option)}, is {getattr(now, option)}"
        for option, field in _PLACE.items()
        if getattr(before, option) != getattr(now, option)
    ]
