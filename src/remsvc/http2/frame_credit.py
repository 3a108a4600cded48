"""Limits how many frames a peer may send that carry nothing.

Each frame costs its receiver work, whether anything useful is in it or not. So a peer has a credit of
frames. It grows with time and with what is useful (calls, messages, data), and each frame takes one away. A
peer whose credit is used up has sent a flood, and its connection ends.
"""

from __future__ import annotations

from remsvc.http2.engine import EngineError
from remsvc.http2.messages import PREFIX_BYTES

_CREDIT, _MOST_CREDIT, _CREDIT_PER_SECOND = 1000.0, 10_000.0, 100.0

EARNED_BY_CALL = 16
EARNED_BY_MESSAGE = 8
"""By each message that was read."""
EARNED_PER_BYTE = 1 / 1024
"""By each byte of data, in either direction."""


def earned_by_data(size: int) -> float:
    """What the data of one frame earns that has come for a call.

    A frame that has room for a message pays for itself, even if nobody reads it: the window of the stream
    limits how much can be unread.
    """
    return size * EARNED_PER_BYTE + (1.0 if size >= PREFIX_BYTES else 0.0)


class FrameCredit:
    """How many more frames a peer may send: earned by time, calls, messages and data.

    Args:
        now: when its connection was made, in seconds.
    """

    __slots__ = ("_credit", "_frames", "_spent_at")

    def __init__(self, now: float) -> None:
        self._credit = _CREDIT
        self._spent_at = now
        self._frames = 0

    def earn(self, credit: float) -> None:
        """Something useful came, or was sent."""
        self._credit += credit

    def spend(self, frames: int, now: float) -> float:
        """Pay for the frames that have come.

        Args:
            frames: how many have begun since the connection was made.
            now: the time, in seconds of the clock that the constructor was given.

        Returns:
            Seconds since the last payment.

        Raises:
            EngineError: the credit is used up.
        """
        elapsed = now - self._spent_at
        credit = self._credit + elapsed * _CREDIT_PER_SECOND - (frames - self._frames)
        self._credit = min(credit, _MOST_CREDIT)
        self._spent_at, self._frames = now, frames
        if credit < 0:
            raise EngineError("too many frames that carry nothing")
        return elapsed
