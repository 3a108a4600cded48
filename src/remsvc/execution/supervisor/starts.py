"""Commands that may not start yet, each waiting for others of its caller.

A stream's command waits for the one before it to end. A command that takes long to become its
program waits until not too many of its caller's do that at the same time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from remsvc.execution.supervisor.command import Prepared
from remsvc.execution.supervisor.records import CommandId

START_SECONDS = 10.0
"""How long a start may take, and how long it is waited for one of its caller's to get on."""

MAX_STARTING = 16
"""Processes of one caller that may be on their way to becoming their programs."""


class Successors:
    """One at most waits for each command. Whoever puts one in starts or withdraws it."""

    def __init__(self) -> None:
        self._by_before: dict[CommandId, Prepared] = {}
        self._befores: dict[CommandId, CommandId] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._befores

    def waiting_for(self, before: CommandId) -> CommandId | None:
        """Which command waits for this one."""
        prepared = self._by_before.get(before)
        return None if prepared is None else prepared.id

    def put(self, prepared: Prepared, before: CommandId) -> None:
        """Let a command wait for ``before``."""
        self._by_before[before] = prepared
        self._befores[prepared.id] = before

    def take(self, before: CommandId) -> Prepared | None:
        """The command that waited for ``before``, if there is one; it waits no longer."""
        prepared = self._by_before.pop(before, None)
        if prepared is not None:
            del self._befores[prepared.id]
        return prepared

    def withdraw(self, name: CommandId) -> bool:
        """Let a command not start after all; False where it does not wait."""
        if name not in self._befores:
            return False
        self._by_before.pop(self._befores.pop(name)).close()
        return True

    def withdraw_all(self) -> None:
        """Let none of them start."""
        for name in list(self._befores):
            self.withdraw(name)


class Starts:
    """Who is starting, and who waits for that. Whoever puts a command in starts it or takes it out."""

    def __init__(self) -> None:
        self._starting: dict[int, str] = {}
        self._of_caller: Counter[str] = Counter()
        self._waiting: dict[CommandId, Prepared] = {}
        self._got_on: dict[str, float] = {}  # when one of a caller's did last

    def __contains__(self, name: object) -> bool:
        return name in self._waiting

    def __iter__(self) -> Iterator[Prepared]:
        """The commands that wait."""
        return iter(self._waiting.values())

    def has_room(self, caller: str) -> bool:
        """Whether one more of this caller may start."""
        return self._of_caller[caller] < MAX_STARTING

    def begin(self, pid: int, caller: str) -> None:
        """A process is on its way."""
        self._starting[pid] = caller
        self._of_caller[caller] += 1

    def end(self, pid: int, *, became: bool = False) -> bool:
        """It ``became`` its program, or is gone. False where it was not on its way."""
        if pid not in self._starting:
            return False
        caller = self._starting.pop(pid)
        self._of_caller[caller] -= 1
        if became:
            self._got_on[caller] = time.monotonic()
        if not self._of_caller[caller]:
            del self._of_caller[caller]
            self._got_on.pop(caller, None)
        return True

    def patience(self, name: CommandId) -> float:
        """Seconds for which a command waits on, since others of its caller get on; 0 where they do not."""
        prepared = self._waiting.get(name)
        if prepared is None or (got_on := self._got_on.get(prepared.caller)) is None:
            return 0.0
        return max(0.0, got_on + START_SECONDS - time.monotonic())

    def put(self, prepared: Prepared) -> None:
        """Let a command wait for room."""
        self._waiting[prepared.id] = prepared

    def take(self, name: CommandId) -> Prepared | None:
        """A command that waited, if it still did; it waits no longer."""
        return self._waiting.pop(name, None)

    def next(self) -> Prepared | None:
        """Of the commands that there is room for, the one that has waited longest; it waits no longer."""
        for prepared in self._waiting.values():
            if self.has_room(prepared.caller):
                return self.take(prepared.id)
        return None
