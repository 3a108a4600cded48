"""A queue that is fair between identities: each has a turn, however many jobs another has waiting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """First in, first out for each identity; the identities take turns."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._identities: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._identities)

    def __contains__(self, item: T) -> bool:
        return item in self._identities

    def put(self, identity: str, item: T) -> None:
        """Add an item that is not in the queue."""
        self._identities[item] = identity
        self._lanes.setdefault(identity, OrderedDict())[item] = None

    def get(self) -> T:
        """Take the next item; the queue is not empty."""
        identity, lane = self._lanes.popitem(last=False)
        item, _ = lane.popitem(last=False)
        if lane:
            self._lanes[identity] = lane  # at the back
        del self._identities[item]
        return item

    def remove(self, item: T) -> bool:
        """Take an item out of its turn; False where it is not there any more."""
        identity = self._identities.pop(item, None)
        if identity is None:
            return False
        lane = self._lanes[identity]
        del lane[item]
        if not lane:
            del self._lanes[identity]
        return True
