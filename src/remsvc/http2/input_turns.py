"""Shares out an event loop's time among connections that have received much."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Hashable
from typing import Protocol

_logger = logging.getLogger("remsvc.http2")

_SLICE_SECONDS = 0.005


class _HasRest(Protocol):
    def take_rest(self) -> None:
        """Take in one turn's part of what was received, and ask for another turn where more is left."""

    def cut(self, reason: str) -> None:
        """End the connection at once."""


class InputTurns:
    """The connections that have received something which they have not taken in yet.

    There are never more of them than connections: each waits once, and receives nothing more meanwhile. In
    each round of the event loop, turns are given for 5 ms. Then everything else in the loop goes on, such
    as calls.
    """

    def __init__(self) -> None:
        # Those that wait, by the value among which turns are shared out evenly. The first one is next.
        self._waiting: dict[Hashable, deque[_HasRest]] = {}
        self._giving = False
        self._round_ends = 0.0  # until when input is taken in without a turn; 0: nothing was in this round

    def may_take_at_once(self) -> bool:
        """Whether a connection may take in what it has received without waiting for a turn.

        It may where nobody else waits, and not much was taken in since the event loop's last round.
        """
        if self._waiting:
            return False
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._round_ends:
            self._round_ends = now + _SLICE_SECONDS
            loop.call_soon(self._end_round)
        return now < self._round_ends

    def _end_round(self) -> None:
        self._round_ends = 0.0

    def ask(self, connection: _HasRest, sharing: Hashable = None) -> None:
        """Have the :meth:`take_rest` of a connection called when it is its turn.

        Args:
            connection: comes after those that wait already.
            sharing: connections with the same value get one turn together in each cycle; None: this one
                gets turns of its own.
        """
        key: Hashable = id(connection) if sharing is None else sharing
        self._waiting.setdefault(key, deque()).append(connection)
        if not self._giving:
            self._giving = True
            asyncio.get_running_loop().call_soon(self._give)

    def _next(self) -> _HasRest:
        sharing = next(iter(self._waiting))
        queue = self._waiting.pop(sharing)
        connection = queue.popleft()
        if queue:
            self._waiting[sharing] = queue  # behind all others
        return connection

    def _give(self) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + _SLICE_SECONDS
        for _ in range(sum(map(len, self._waiting.values()))):
            connection = self._next()
            try:
                connection.take_rest()
            except Exception:
                # Whatever is wrong with one connection, the others get their turns.
                _logger.exception("a connection has failed")
                connection.cut("the connection has failed")
            if loop.time() >= ends:
                break
        self._giving = bool(self._waiting)
        if self._giving:
            loop.call_soon(self._give)
