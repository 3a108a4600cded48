"""Bounds how many jobs run and wait, of all identities and of each, and says which runs next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from remsvc.execution.jobs.gate import JobGate
from remsvc.execution.jobs.model import JobLimits, QueueFullError
from remsvc.tally import Tally

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """First in, first out for each identity; the identities take turns."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._identities: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._identities)

    def __contains__(self, item: T) -> bool:
        return item in self._identities

    def put(self, identity: str, item: T) -> None:
        """Add an item that is not in the queue."""
        self._identities[item] = identity
        self._queues.setdefault(identity, OrderedDict())[item] = None

    def waiting(self, identity: str) -> int:
        """How many items of an identity are in it."""
        return len(self._queues.get(identity, ()))

    def any_ready(self, ready: Callable[[str], bool]) -> bool:
        """Whether :meth:`get` would find one."""
        return any(map(ready, self._queues))

    def get(self, ready: Callable[[str], bool] = lambda _: True) -> T | None:
        """Take the next item of those identities that are ready; None where there is none."""
        identity = next(filter(ready, self._queues), None)
        if identity is None:
            return None
        queue = self._queues.pop(identity)
        item, _ = queue.popitem(last=False)
        if queue:
            self._queues[identity] = queue  # at the back
        del self._identities[item]
        return item

    def remove(self, item: T) -> bool:
        """Take an item out of its turn; False where it is not there any more."""
        identity = self._identities.pop(item, None)
        if identity is None:
            return False
        queue = self._queues[identity]
        del queue[item]
        if not queue:
            del self._queues[identity]
        return True


class JobPlace:
    """What one job takes of the room that there is, from before it is claimed until it has ended.

    It counts among those that wait, or among those that run; only :class:`JobSlots` makes one, and its job
    owns it. A job that has to wait gets its turn in the queue with :meth:`wait`, once it is claimed.

    Attributes:
        identity, job_id: whose place it is.
        runs: whether it counts among those that run.
    """

    __slots__ = ("_slots", "_taken", "identity", "job_id", "runs")

    def __init__(self, slots: JobSlots, identity: str, job_id: str, *, runs: bool) -> None:
        self.identity = identity
        self.job_id = job_id
        self.runs = runs
        self._slots = slots
        self._taken = True

    def wait(self) -> None:
        """Take a turn in the queue: the job is claimed, and has to wait."""
        self._slots._enqueue(self)

    def run(self) -> None:
        """Its turn has come: from now on it counts among those that run."""
        self.runs = True

    def leave_queue(self) -> bool:
        """Give up its turn, and the place with it; False where it has none, or no more."""
        if not self._taken or not self._slots._dequeue(self):
            return False
        self._taken = False
        return True

    def release(self) -> None:
        """The job has ended, or was not claimed: another one may have its place. Idempotent."""
        if self._taken:
            self._taken = False
            self._slots._free(self)


class JobSlots:
    """How many jobs run, how many wait, and which of them are next.

    Args:
        limits: of all identities together.
        gate: of each.
        on_room: called whenever there is room for one more job to run.
    """

    def __init__(self, limits: JobLimits, gate: JobGate, on_room: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._gate = gate
        self._on_room = on_room
        self._queue: FairQueue[JobPlace] = FairQueue()
        self._running: Tally[str] = Tally()
        self._arriving: Tally[str] = Tally()

    @property
    def running(self) -> int:
        """How many jobs run, or are about to."""
        return self._running.total

    def running_of(self, identity: str) -> int:
        """How many of them are an identity's."""
        return self._running.of(identity)

    def reserve(self, identity: str, job_id: str, *, can_start: bool) -> JobPlace:
        """A place for a new job, among those that run if it can: before nobody who waits and could run too.

        Args:
            can_start: there is somebody who could start it.

        Raises:
            QueueFullError: it would have to wait, and as many wait as may.
        """
        runs = (
            can_start
            and self._has_room()
            and self._may_run(identity)
            and not self._queue.any_ready(self._may_run)
        )
        if not runs:
            self._check_queue(identity)
        return self._take(identity, job_id, runs=runs)

    def restore(self, identity: str, job_id: str, *, runs: bool) -> JobPlace:
        """The place that a job had with a server before this one, whatever the limits are now."""
        place = self._take(identity, job_id, runs=runs)
        if not runs:
            place.wait()
        return place

    def start_next(self) -> str | None:
        """Count the next job that waits among those that run; its id, None where none may run now."""
        place = self._queue.get(self._may_run) if self._has_room() else None
        if place is None:
            return None
        place.run()
        self._running.add(place.identity)
        return place.job_id

    def _check_queue(self, identity: str) -> None:
        waiting = len(self._queue) + self._arriving.total
        if waiting >= self._limits.max_queued:
            raise QueueFullError(f"{waiting} jobs are waiting already")
        limit = self._gate.queue_limit(identity)
        if limit is not None and self._queue.waiting(identity) + self._arriving.of(identity) >= limit:
            raise QueueFullError(f"{limit} jobs of {identity} are waiting already (rule max_queued)")

    def _take(self, identity: str, job_id: str, *, runs: bool) -> JobPlace:
        (self._running if runs else self._arriving).add(identity)
        return JobPlace(self, identity, job_id, runs=runs)

    # For JobPlace

    def _enqueue(self, place: JobPlace) -> None:
        self._arriving.remove(place.identity)
        self._queue.put(place.identity, place)

    def _dequeue(self, place: JobPlace) -> bool:
        return self._queue.remove(place)

    def _free(self, place: JobPlace) -> None:
        if place.runs:
            self._running.remove(place.identity)
            self._gate.note_room(place.identity)
            self._on_room()
        elif not self._queue.remove(place):
            self._arriving.remove(place.identity)

    def _has_room(self) -> bool:
        return self.running < self._limits.max_running

    def _may_run(self, identity: str) -> bool:
        limit = self._gate.running_limit(identity)
        return limit is None or self._running.of(identity) < limit
