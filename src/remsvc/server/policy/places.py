"""Holds each identity to ``max_running``: its version-1 commands and its durable jobs, counted together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from remsvc.server.refusal import exhausted
from remsvc.time_limit import TimeLimit

_RETRY_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0


class JobsBeside(Protocol):
    """The durable jobs of a server, as far as they share an identity's places with version-1 commands."""

    def running_of(self, identity: str) -> int:
        """How many jobs of an identity run now."""

    def start_waiting(self) -> None:
        """Start jobs that wait: there may be room for them now."""

    def has_input(self, job_id: str) -> bool:
        """Whether a job that waits was given standard input."""


class NoJobs(JobsBeside):
    """A server without durable jobs."""

    def running_of(self, identity: str) -> int:
        return 0

    def start_waiting(self) -> None:
        pass

    def has_input(self, job_id: str) -> bool:
        return False


class CommandPlaces:
    """Counts the version-1 commands that run, and lets others wait until one may.

    Args:
        limit: how many commands and jobs an identity may run; None for any number.
    """

    def __init__(self, limit: Callable[[str], int | None]) -> None:
        self._jobs: JobsBeside = NoJobs()
        self._limit = limit
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}  # first those who came first

    def share_with(self, jobs: JobsBeside) -> None:
        """Count these durable jobs as well, from now on."""
        self._jobs = jobs

    def beside(self, identity: str) -> int:
        """How many of an identity's places its durable jobs must leave: to commands that run, or wait to."""
        return self._taken.get(identity, 0) + len(self._waiting.get(identity, ()))

    def take(self, identity: str) -> None:
        """Take a place.

        Raises:
            RefusedError: as many of the identity's commands and jobs run as may.
        """
        if not self._is_free(identity):
            reason = f"{self._limit(identity)} commands are running already (rule max_running)"
            raise exhausted(reason, _RETRY_SECONDS, rule="max_running")
        self._taken[identity] += 1

    async def take_patiently(self, identity: str) -> None:
        """Take a place, or wait for the next one that is free. Durable jobs that wait come after this.

        Raises:
            RefusedError: none has become free within a minute.
        """
        if self._is_free(identity):
            self.take(identity)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(identity, {})[place] = None
        try:
            with TimeLimit(_PATIENCE_SECONDS):
                await place
        except TimeoutError:
            if not self._was_given(identity, place):
                self.take(identity)
        except asyncio.CancelledError:
            if self._was_given(identity, place):
                self.give_back(identity)
            raise

    def give_back(self, identity: str) -> None:
        """Give a place back, because its command has ended."""
        self._taken[identity] -= 1
        if not self._taken[identity]:
            del self._taken[identity]
        self.note_room(identity)
        if self._limit(identity) is not None:
            self._jobs.start_waiting()

    def note_room(self, identity: str) -> None:
        """Give places that are free to the commands that wait, the one first that has waited for longest.

        To be called when a command or a job of the identity has ended.
        """
        waiting = self._waiting.get(identity, {})
        while waiting and self._is_free(identity):
            place = next(iter(waiting))
            self._forget(identity, place)
            if not place.done():
                self.take(identity)
                place.set_result(None)

    def note_limits(self) -> None:
        """Do so for every identity: the limits have changed, and more may run now."""
        for identity in list(self._waiting):
            self.note_room(identity)

    def _was_given(self, identity: str, place: asyncio.Future[None]) -> bool:
        """Whether a place was given to somebody who does not wait any more.

        If not, durable jobs may start in what is free: until now, they had to leave a place to him.
        """
        if place.done() and not place.cancelled():
            return True
        self._forget(identity, place)
        self._jobs.start_waiting()
        return False

    def _forget(self, identity: str, place: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(identity, {})
        waiting.pop(place, None)
        if not waiting:
            self._waiting.pop(identity, None)

    def _is_free(self, identity: str) -> bool:
        limit = self._limit(identity)
        return limit is None or self._taken[identity] + self._jobs.running_of(identity) < limit


class Place:
    """The place of one call, for one command after the other. The end of the block gives it back."""

    def __init__(self, places: CommandPlaces, identity: str) -> None:
        self._places = places
        self._identity = identity
        self._held = False

    async def take(self, *, patiently: bool) -> None:
        """Take it, unless it is held already.

        Args:
            patiently: to wait where none is free.

        Raises:
            RefusedError: as many commands and jobs run as may.
        """
        if self._held:
            return
        if patiently:
            await self._places.take_patiently(self._identity)
        else:
            self._places.take(self._identity)
        self._held = True

    def give_back(self) -> None:
        """Give it back, because nothing runs now. Idempotent."""
        if self._held:
            self._held = False
            self._places.give_back(self._identity)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.give_back()
