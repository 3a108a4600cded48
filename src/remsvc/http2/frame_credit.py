"""Frames cost their receiver work, and may carry nothing: what they may cost has to be earned."""

from __future__ import annotations

from remsvc.http2.engine import EngineError
from remsvc.http2.messages import PREFIX_BYTES

_CREDIT, _MOST_CREDIT, _CREDIT_PER_SECOND = 1000.0, 10_000.0, 100.0

EARNED_BY_CALL = 16
EARNED_BY_MESSAGE = 8
"""By one that was read."""
EARNED_PER_BYTE = 1 / 1024
"""Of data, in either direction."""


def earned_by_data(size: int) -> float:
    """By one frame's data that has come for a call.

    A frame with room for a message pays for itself, read or not: how much may be unread, the window bounds.
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
        """Something came, or went, that was worth its frames."""
        self._credit += credit

    def spend(self, frames: int, now: float) -> float:
        """Pay for what came.

        Args:
            frames: how many have begun, since the connection was made.
            now: when.

        Returns:
            Seconds since the last time.

        Raises:
            EngineError: they carried too little.
        """
        elapsed = now - self._spent_at
        credit = self._credit + elapsed * _CREDIT_PER_SECOND - (frames - self._frames)
        self._credit = min(credit, _MOST_CREDIT)
        self._spent_at, self._frames = now, frames
        if credit < 0:
            raise EngineError("too many frames that carry nothing")
        return elapsed
