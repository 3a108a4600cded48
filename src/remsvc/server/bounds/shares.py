"""Sharing what all callers have together, so that none of them can take all of it."""

from __future__ import annotations

from remsvc.server.caller import ANONYMOUS
from remsvc.tally import Tally

_TIMES_WHAT_IS_LEFT = 4


class Shares(Tally[str]):
    """How much each identity has of something of which there is only so much.

    Args:
        most: how much there is for all identities together.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def has_room(self, whose: str, amount: int = 1) -> bool:
        """Whether an identity may have so much more.

        Who has most is refused first, while there is room for the others: one identity alone gets four
        fifths, a second one four fifths of what that leaves, and so on. Where nobody shows who he is, nobody
        can be told from the others.
        """
        left = self._most - self.total - amount
        # The last unit asked for does not count, so that a caller with nothing can still get the last one.
        others = self.of(whose) + amount - 1
        return left >= 0 and (whose == ANONYMOUS or others <= _TIMES_WHAT_IS_LEFT * (left + 1))
