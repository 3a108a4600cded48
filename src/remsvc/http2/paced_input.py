"""The receiving half of a connection that takes in its input by turns, however fast its peer sends."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Hashable

from remsvc.http2.input_turns import InputTurns

# A connection that has paused may still be handed so many buffers full: asyncio's TLS, which clients use,
# and asyncio's transports on Windows deliver what they had received before.
_MOST_BUFFERS = 64


class PacedInput(asyncio.BufferedProtocol, ABC):
    """Takes in what one connection receives, at most one turn's share at once.

    Args:
        input_buffer: the memory that all connections of the event loop receive into. What one has received
            is taken in or copied before another receives anything.
    """

    def __init__(self, input_buffer: memoryview) -> None:
        self._input_buffer = input_buffer
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    @property
    @abstractmethod
    def _turns(self) -> InputTurns:
        """The turns that this connection takes part in."""

    @property
    def shares_turns(self) -> Hashable:
        """What it shares its turns by, with other connections: see :meth:`InputTurns.ask`."""
        return None

    @abstractmethod
    def _take(self, data: memoryview) -> int:
        """Take in as much as one turn permits; returns how many bytes that were."""

    @abstractmethod
    def cut(self, reason: str) -> None:
        """End the connection at once."""

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._input_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._input_buffer[:nbytes]
        if self._rest:
            self._rest += data
            if len(self._rest) > _MOST_BUFFERS * len(self._input_buffer):
                self.cut("the peer sends on although nothing is read")
        elif self._turns.may_take_at_once():
            taken = self._take(data)
            if taken < nbytes:
                self._wait_for_turn(data[taken:])
        else:
            self._wait_for_turn(data)

    def take_rest(self) -> None:
        """See :class:`~remsvc.http2.input_turns.InputTurns`."""
        if self._transport is None:
            return
        rest, self._rest = memoryview(self._rest), b""
        taken = self._take(rest)
        if taken < len(rest):
            self._wait_for_turn(rest[taken:])
        elif self._transport is not None:
            self._transport.resume_reading()

    def _wait_for_turn(self, rest: memoryview) -> None:
        """Keep the rest until it is this connection's turn, and receive nothing more until then."""
        if self._transport is not None:
            self._rest = bytes(rest)
            self._transport.pause_reading()
            self._turns.ask(self, self.shares_turns)
