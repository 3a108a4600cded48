"""Sharing what all callers have together, so that none of them can take all of it."""

from __future__ import annotations

from remsvc.server.caller import ANONYMOUS

_TIMES_WHAT_IS_LEFT = 4


def may_have_more(identity: str, own: int, free: int) -> bool:
    """Whether an identity that has ``own`` of something may have one more, where ``free`` are left.

    Who has most is refused first, while there is room for the others: one identity alone gets four fifths, a
    second one four fifths of what that leaves, and so on. Where nobody shows who he is, nobody can be told
    from the others.
    """
    return free > 0 and (identity == ANONYMOUS or own <= _TIMES_WHAT_IS_LEFT * free)
