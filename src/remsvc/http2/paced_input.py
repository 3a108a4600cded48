"""A connection that takes in what it receives by turns: its peer may send as fast as it likes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Hashable

from remsvc.http2.input_turns import InputTurns

# asyncio's TLS, which clients use, and the transports of Windows hand over what they had received already.
_MOST_BUFFERS = 64


class PacedInput(asyncio.BufferedProtocol, ABC):
    """Takes in what one connection receives, at most a turn's share at once.

    Args:
        input_buffer: what was received last, on any connection of the event loop; of no use after it was
            taken in.
    """

    def __init__(self, input_buffer: memoryview) -> None:
        self._input_buffer = input_buffer
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    @property
    @abstractmethod
    def _turns(self) -> InputTurns:
        """Where it waits for its next turn."""

    @property
    def shares_turns(self) -> Hashable:
        """With which connections it has a turn together: see :meth:`InputTurns.ask`."""
        return None

    @abstractmethod
    def _take(self, data: memoryview) -> int:
        """Take in as much as one turn permits; how many bytes that were."""

    @abstractmethod
    def cut(self, reason: str) -> None:
        """End it at once."""

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
        """Have the rest taken in when it is this connection's turn, and receive nothing more until then."""
        if self._transport is not None:
            self._rest = bytes(rest)
            self._transport.pause_reading()
            self._turns.ask(self, self.shares_turns)
