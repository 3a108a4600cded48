"""Room for a number of running jobs, of all identities and of each, and those that wait for it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from remsvc.execution.jobs.gate import JobGate
from remsvc.execution.jobs.model import JobLimits

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


class JobSlot:
    """Room that a job which runs takes, until it is released. A job owns its slot; nothing else frees it."""

    __slots__ = ("_identity", "_slots")

    def __init__(self, slots: JobSlots, identity: str) -> None:
        self._slots: JobSlots | None = slots
        self._identity = identity

    def release(self) -> None:
        """The job does not run any more: another one may. Idempotent."""
        if self._slots is not None:
            slots, self._slots = self._slots, None
            slots.free(self._identity)


class JobSlots:
    """How many jobs run, and which are next.

    Args:
        limits: of all identities together.
        gate: of each.

    Attributes:
        on_room: called whenever there is room for one more job.
    """

    def __init__(self, limits: JobLimits, gate: JobGate) -> None:
        self._limits = limits
        self._gate = gate
        self.on_room: Callable[[], None] = lambda: None
        self._queue: FairQueue[str] = FairQueue()
        self._running: Counter[str] = Counter()
        self._arriving: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """How many jobs run, or are about to."""
        return self._running.total()

    def running_of(self, identity: str) -> int:
        """How many of them are an identity's."""
        return self._running.get(identity, 0)

    def is_free(self, identity: str) -> bool:
        """Whether a new job of this identity may run at once, before nobody who could."""
        return self._has_room() and self._may_run(identity) and not self._queue.any_ready(self._may_run)

    def queue_refusal(self, identity: str) -> str:
        """Why one more job may not wait; empty where it may."""
        waiting = len(self._queue) + self._arriving.total()
        if waiting >= self._limits.max_queued:
            return f"{waiting} jobs are waiting already"
        limit = self._gate.queue_limit(identity)
        if limit is not None and self._queue.waiting(identity) + self._arriving[identity] >= limit:
            return f"{limit} jobs of {identity} are waiting already (rule max_queued)"
        return ""

    @contextmanager
    def arriving(self, identity: str) -> Iterator[None]:
        """Count a job, which will have to wait, in the block in which it is claimed."""
        self._arriving[identity] += 1
        try:
            yield
        finally:
            _count_down(self._arriving, identity)

    def take(self, identity: str) -> JobSlot:
        """Room for a job that is about to run."""
        self._running[identity] += 1
        return JobSlot(self, identity)

    def free(self, identity: str) -> None:
        """For :meth:`JobSlot.release` alone."""
        _count_down(self._running, identity)
        self._gate.note_room(identity)
        self.on_room()

    def put(self, identity: str, job_id: str) -> None:
        """Let a job wait."""
        self._queue.put(identity, job_id)

    def remove(self, job_id: str) -> bool:
        """Let a job wait no longer; False where it did not."""
        return self._queue.remove(job_id)

    def next(self) -> str | None:
        """Take the next job that waits; None where there is none, or no room for it."""
        return self._queue.get(self._may_run) if self._has_room() else None

    def _has_room(self) -> bool:
        return self.running < self._limits.max_running

    def _may_run(self, identity: str) -> bool:
        limit = self._gate.running_limit(identity)
        return limit is None or self._running[identity] < limit


def _count_down(counter: Counter[str], identity: str) -> None:
    counter[identity] -= 1
    if not counter[identity]:
        del counter[identity]
