"""Asking Airflow what a connection says, once for all triggers that start at about the same time.

A triggerer's event loop asks its parent process, which answers one question after another, between looks
into the database: an answer takes some 0.1 s, with the requests to mask what is secret in it. Asked by each
of a thousand triggers, it would take minutes until all of them have started.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remsvc_provider.per_loop import PerLoop
from remsvc_provider.turns import turn
from remsvc_provider.version_compat import aget_connection, amask_secret

if TYPE_CHECKING:
    from airflow.sdk import Connection

SHARED_SECONDS = 3.0
"""How old an answer may be for a trigger that starts. From the moment in which somebody changes a connection,
and then has a task run with it, Airflow takes about as long until the task's trigger starts."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Airflow said.

    Attributes:
        asked_at: when it was asked, in seconds of the monotonic clock.
        connection: the connection; or why there is none.
    """

    asked_at: float
    connection: Connection | Exception


class _Lookups:
    """Those of one event loop."""

    def __init__(self) -> None:
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._answers: dict[str, _Answer] = {}
        self._masking = asyncio.Lock()
        self._masked: set[str] = set()

    async def look_up(self, conn_id: str, max_age: float) -> Connection:
        called_at = time.monotonic()
        async with self._turns[conn_id]:
            # Whoever waited for this turn finds what the one before has been told.
            answer = self._answers.get(conn_id)
            if answer is None or not _will_do(answer, called_at, max_age):
                answer = self._answers[conn_id] = await _ask(conn_id)
        if isinstance(answer.connection, Exception):
            raise answer.connection.with_traceback(None)
        return copy(answer.connection)  # nobody changes what others have

    async def mask(self, secret: str) -> None:
        async with self._masking:
            if secret not in self._masked:
                await amask_secret(secret)
                self._masked.add(secret)


_lookups = PerLoop(_Lookups)


async def look_up(conn_id: str, *, max_age: float = 0.0) -> Connection:
    """The Airflow connection, without blocking the event loop.

    Args:
        conn_id: its id.
        max_age: seconds since Airflow was asked, after which it is asked again. Even with 0, those who ask
            at the same time share an answer that was asked for after all of them had called this.

    Raises:
        AirflowException: there is no such connection, or whatever else Airflow raises.
    """
    return await _lookups.get().look_up(conn_id, max_age)


async def mask_once(secret: str) -> None:
    """Have Airflow mask ``secret`` in the logs of this process and its parent, unless it does so already."""
    await _lookups.get().mask(secret)


async def _ask(conn_id: str) -> _Answer:
    async with turn("Airflow"):
        asked_at = time.monotonic()
        try:
            return _Answer(asked_at, await aget_connection(conn_id))
        except Exception as problem:  # noqa: BLE001  whatever it is, it is raised for each who has waited
            return _Answer(asked_at, problem)


def _will_do(answer: _Answer, called_at: float, max_age: float) -> bool:
    """Whether an answer is new enough. A failure is for those only who waited for it: somebody may have
    cured it since."""
    if isinstance(answer.connection, Exception):
        max_age = 0.0
    return answer.asked_at >= called_at - max_age
