"""Turns for connections whose peers send faster than they may be served: none of them holds up the rest."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol

_logger = logging.getLogger("remsvc.http2")

_SLICE_SECONDS = 0.005


class _HasRest(Protocol):
    def take_rest(self) -> None:
        """Take in one more turn's part of what came, and ask for another turn where more is left."""

    def cut(self, reason: str) -> None:
        """End it at once."""


class InputTurns:
    """The queue of connections with input that was received and not taken in.

    Bounded: a connection is in it once, and nothing more is received from it meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: deque[_HasRest] = deque()
        self._giving = False

    def ask(self, connection: _HasRest) -> None:
        """Have its :meth:`take_rest` called, after those that wait already."""
        self._waiting.append(connection)
        if not self._giving:
            self._giving = True
            asyncio.get_running_loop().call_soon(self._give)

    def _give(self) -> None:
        # For a moment; then everything else that happened has its turn, such as the calls of others.
        loop = asyncio.get_running_loop()
        ends = loop.time() + _SLICE_SECONDS
        for _ in range(len(self._waiting)):
            connection = self._waiting.popleft()
            try:
                connection.take_rest()
            except Exception:
                # Whatever is wrong with one of them, the others have their turns.
                _logger.exception("a connection has failed")
                connection.cut("has failed")
            if loop.time() >= ends:
                break
        self._giving = bool(self._waiting)
        if self._giving:
            loop.call_soon(self._give)
