"""Holds each identity to ``max_running``: its version-1 commands and its durable jobs, counted together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from remsvc.server.bounds.room import Room
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.tally import Tally
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


class CommandPlaces(Room):
    """Counts the version-1 commands that run, and lets others wait until one may.

    Args:
        limit: how many commands and jobs an identity may run; None for any number.
    """

    def __init__(self, limit: Callable[[str], int | None]) -> None:
        self._jobs: JobsBeside = NoJobs()
        self._limit = limit
        super().__init__(Tally())

    def share_with(self, jobs: JobsBeside) -> None:
        """Count these durable jobs as well, from now on."""
        self._jobs = jobs

    def has_room(self, whose: str, amount: int = 1) -> bool:
        limit = self._limit(whose)
        return limit is None or self._taken.of(whose) + self._jobs.running_of(whose) + amount <= limit

    def refusal(self, whose: str) -> RefusedError:
        reason = f"{self._limit(whose)} commands are running already (rule max_running)"
        return exhausted(reason, _RETRY_SECONDS, rule="max_running")

    def beside(self, identity: str) -> int:
        """How many of an identity's places its durable jobs must leave: to commands that run, or wait to."""
        return self._taken.of(identity) + self.waiting(identity)

    async def take_patiently(self, identity: str) -> None:
        """Take a place, or wait for the next one that is free. Durable jobs that wait come after this.

        Raises:
            RefusedError: none has become free within a minute.
        """
        try:
            with TimeLimit(_PATIENCE_SECONDS):
                await self.wait(identity)
        except TimeoutError:
            self._jobs.start_waiting()  # until now they had to leave a place to this command
            self.take(identity)
        except asyncio.CancelledError:
            self._jobs.start_waiting()
            raise

    def give_back(self, whose: str, amount: int = 1) -> None:
        """Give a place back, because its command has ended: to a command that waits, or else to a job."""
        super().give_back(whose, amount)
        self.serve(whose)
        if self._limit(whose) is not None:
            self._jobs.start_waiting()


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
