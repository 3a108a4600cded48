"""Counts per key, with a total."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Tally(Generic[K]):
    """How much each key has. Keys at zero are forgotten, because callers come and go.

    Attributes:
        total: how much all have together.
    """

    def __init__(self) -> None:
        self._counts: dict[K, int] = {}
        self.total = 0

    def of(self, whose: K) -> int:
        """How much one of them has."""
        return self._counts.get(whose, 0)

    def add(self, whose: K, amount: int = 1) -> None:
        """One of them has so much more."""
        count = self._counts.get(whose, 0) + amount
        if count:
            self._counts[whose] = count
        else:
            self._counts.pop(whose, None)
        self.total += amount

    def remove(self, whose: K, amount: int = 1) -> None:
        """One of them has so much less."""
        self.add(whose, -amount)

    def __iter__(self) -> Iterator[K]:
        """Those who have some."""
        return iter(self._counts)
