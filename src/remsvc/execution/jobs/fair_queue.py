"""A queue that is fair between identities: each has a turn, however many jobs another has waiting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
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

    def waiting(self, identity: str) -> int:
        """How many items of an identity are in it."""
        return len(self._lanes.get(identity, ()))

    def any_ready(self, ready: Callable[[str], bool]) -> bool:
        """Whether :meth:`get` would find one."""
        return any(map(ready, self._lanes))

    def get(self, ready: Callable[[str], bool] = lambda _: True) -> T | None:
        """Take the next item of those identities that are ready; None where there is none."""
        identity = next(filter(ready, self._lanes), None)
        if identity is None:
            return None
        lane = self._lanes.pop(identity)
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
