"""Asks Airflow what a connection says, once for all triggers that start at about the same time.

A triggerer's event loop asks its parent process, which answers one question after another: an answer takes
some 0.1 s. If each of a thousand triggers asked, it would take minutes until all of them have started. So
triggers share an answer. But no task gets an answer that was asked for before it was deferred: it would miss
what somebody has changed in the connection by then.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from remsvc_provider.per_loop import PerLoop
from remsvc_provider.turns import turn
from remsvc_provider.version_compat import aget_connection, amask_secret

if TYPE_CHECKING:
    from airflow.sdk import Connection

KEPT_SECONDS = 3.0
"""How long an answer is kept. Where the worker's clock is behind ours, an answer may be older than the
deferral by up to this."""

LookedUp: TypeAlias = "Connection | Exception"


@dataclass(slots=True, eq=False)
class _Question:
    """One question.

    Attributes:
        answer: what asks, and gives the answer.
        asked_at: when it was asked, in seconds since the epoch; infinite for one that is still to be.
    """

    answer: asyncio.Task[LookedUp]
    asked_at: float = math.inf


class _Lookups:
    """The questions of one event loop: for each connection the last one that was asked, and the next one."""

    def __init__(self) -> None:
        self._asked: dict[str, _Question] = {}
        self._next: dict[str, _Question] = {}
        self._masking = asyncio.Lock()
        self._masked: dict[str, bytes] = {}

    async def look_up(self, conn_id: str, since: float | None) -> Connection:
        question = self._asked.get(conn_id)
        if question is None or since is None or question.asked_at < since:
            question = self._next.get(conn_id) or self._plan(conn_id, question)
        await asyncio.wait([question.answer])  # not ended with whoever is cancelled: others wait as well
        if isinstance(answer := question.answer.result(), Exception):
            raise answer.with_traceback(None)
        return copy(answer)  # nobody changes what others have

    async def mask(self, conn_id: str, secret: str) -> None:
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        async with self._masking:
            if self._masked.get(conn_id) != digest:
                await amask_secret(secret)
                self._masked[conn_id] = digest

    def _plan(self, conn_id: str, before: _Question | None) -> _Question:
        """A question that is asked as soon as the one before has been answered."""
        question = self._next[conn_id] = _Question(asyncio.create_task(self._ask(conn_id, before)))
        return question

    async def _ask(self, conn_id: str, before: _Question | None) -> LookedUp:
        question = self._next[conn_id]
        try:
            if before is not None:
                await asyncio.wait([before.answer])
            async with turn("Airflow"):
                # From here on somebody may come who knows of a later change.
                self._asked[conn_id] = self._next.pop(conn_id)
                question.asked_at = time.time()
                answer = await aget_connection(conn_id)
        except BaseException as problem:  # whatever it is, it is raised for each who has waited
            self._forget(conn_id, question)
            if isinstance(problem, Exception):
                return problem
            raise
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, conn_id, question)
        return answer

    def _forget(self, conn_id: str, question: _Question) -> None:
        for questions in (self._next, self._asked):
            if questions.get(conn_id) is question:
                del questions[conn_id]


_lookups = PerLoop(_Lookups)


async def look_up(conn_id: str, since: float | None = None) -> Connection:
    """What the Airflow connection says, without blocking the event loop.

    Args:
        conn_id: its id.
        since: in seconds since the epoch; an answer will do that was asked for then or later. None: now.

    Raises:
        AirflowException: there is no such connection, or whatever else Airflow raises.
    """
    return await _lookups.get().look_up(conn_id, since)


async def mask_once(conn_id: str, secret: str) -> None:
    """Have Airflow mask a connection's secret in the logs of this process and its parent, unless this was the
    last one of it that was masked."""
    await _lookups.get().mask(conn_id, secret)
