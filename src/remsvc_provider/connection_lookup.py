"""Asking Airflow what a connection says, once for all triggers that start at about the same time.

A triggerer's event loop asks its parent process, which answers one question after another, between looks
into the database: an answer takes some 0.1 s, with the requests to mask what is secret in it. Asked by each
of a thousand triggers, it would take minutes until all of them have started. So whoever comes while a
question is on its way shares the next one, which is asked as soon as that has been answered. No answer is
kept: a trigger is told of every change that was made before it started.
"""

from __future__ import annotations

import asyncio
import hashlib
from copy import copy
from typing import TYPE_CHECKING, TypeAlias

from remsvc_provider.per_loop import PerLoop
from remsvc_provider.turns import turn
from remsvc_provider.version_compat import aget_connection, amask_secret

if TYPE_CHECKING:
    from airflow.sdk import Connection

Answer: TypeAlias = "Connection | Exception"


class _Lookups:
    """Those of one event loop: of each connection at most one that was asked, and one that is to be."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Task[Answer]] = {}
        self._next: dict[str, asyncio.Task[Answer]] = {}
        self._masking = asyncio.Lock()
        self._masked: dict[str, bytes] = {}

    async def look_up(self, conn_id: str) -> Connection:
        if (asking := self._next.get(conn_id)) is None:
            asking = asyncio.create_task(self._ask(conn_id, self._asked.get(conn_id)))
            self._next[conn_id] = asking
        await asyncio.wait([asking])  # not ended with whoever is cancelled: others wait as well
        if isinstance(answer := asking.result(), Exception):
            raise answer.with_traceback(None)
        return copy(answer)  # nobody changes what others have

    async def mask(self, conn_id: str, secret: str) -> None:
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        async with self._masking:
            if self._masked.get(conn_id) != digest:
                await amask_secret(secret)
                self._masked[conn_id] = digest

    async def _ask(self, conn_id: str, before: asyncio.Task[Answer] | None) -> Answer:
        asking = self._next[conn_id]
        try:
            if before is not None:
                await asyncio.wait([before])
            async with turn("Airflow"):
                # From here on somebody may come who knows of a later change.
                del self._next[conn_id]
                self._asked[conn_id] = asking
                return await aget_connection(conn_id)
        except Exception as problem:  # noqa: BLE001  whatever it is, it is raised for each who has waited
            return problem
        finally:
            for tasks in (self._next, self._asked):
                if tasks.get(conn_id) is asking:
                    del tasks[conn_id]


_lookups = PerLoop(_Lookups)


async def look_up(conn_id: str) -> Connection:
    """The Airflow connection as it is now or later, without blocking the event loop.

    Raises:
        AirflowException: there is no such connection, or whatever else Airflow raises.
    """
    return await _lookups.get().look_up(conn_id)


async def mask_once(conn_id: str, secret: str) -> None:
    """Have Airflow mask a connection's secret in the logs of this process and its parent, unless this was the
    last one of it that was masked."""
    await _lookups.get().mask(conn_id, secret)
