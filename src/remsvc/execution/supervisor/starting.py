"""Starts commands: at once, or when the commands that they wait for have ended or started.

A stream's command waits for the one before it to end. A command that takes long to become its program
waits while too many of its caller's do that at the same time: so what holds up the starts of one caller
holds up nobody else's.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from remsvc.execution.supervisor.command import CommandTable, Launcher, Prepared, Reports, Supervised
from remsvc.execution.supervisor.forked_start import describe_failure, read_verdict
from remsvc.execution.supervisor.protocol import Ended, Start, Started
from remsvc.execution.supervisor.records import CANCELLED, CommandId, ExitRecord
from remsvc.execution.supervisor.timers import Timers

START_SECONDS = 10.0
"""How long a start may take, and how long it is waited for one of its caller's to get on."""

_IN_TIME = f"it could not be started within {START_SECONDS:g} s"

MAX_STARTING = 16
"""Processes of one caller that may be on their way to becoming their programs."""


class Successors:
    """The commands that start when another one has ended: at most one after each.

    Whoever puts one in starts it or withdraws it.
    """

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
    """Bounds how many commands of one caller start at the same time, and keeps those that wait for room.

    The caller of :meth:`put` starts the command later, or takes it out.
    """

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


class Starting:
    """Commands from their orders until they have become their programs, or cannot.

    Args:
        launcher: what starts them.
        table: where their processes go.
        on_process: called with a command when its first process is there.
        on_failure: called with one that did not become its program, after :attr:`on_process`.
    """

    def __init__(
        self,
        launcher: Launcher,
        table: CommandTable,
        selector: selectors.BaseSelector,
        timers: Timers,
        reports: Reports,
        *,
        on_process: Callable[[Supervised], None],
        on_failure: Callable[[Supervised], None],
    ) -> None:
        self._launcher = launcher
        self._table = table
        self._selector = selector
        self._timers = timers
        self._reports = reports
        self._on_process = on_process
        self._on_failure = on_failure
        self._successors = Successors()
        self._starts = Starts()

    def __contains__(self, name: object) -> bool:
        return name in self._successors or name in self._starts

    @property
    def jobs(self) -> list[Prepared]:
        """The durable jobs that wait for room."""
        return [prepared for prepared in self._starts if prepared.folder]

    def start(self, order: Start) -> None:
        """Start a command, once the one before it has ended."""
        try:
            prepared = Prepared(order, self._launcher)
        except (OSError, ValueError) as error:
            # The files are this server's own: where they are is no caller's business.
            self._reports.complain(f"command {order.id} could not be prepared: {error}")
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._fail(order.id, order.folder, f"it could not be prepared: {reason}")
            return
        before = order.after
        there = before in self._table.by_id or before in self._starts
        if before is not None and there and self._successors.waiting_for(before) is None:
            self._successors.put(prepared, before)
        else:
            self._start(prepared)

    def withdraw(self, name: CommandId) -> None:
        """Do not start a command that waits for another one to end or to start, if it still does."""
        if self._successors.withdraw(name):
            self._reports.tell(Ended(name, ExitRecord(withdrawn=True)))
        elif (prepared := self._starts.take(name)) is not None:
            self.withdraw_next(name)
            prepared.close()
            if prepared.folder is None:
                record = ExitRecord(withdrawn=True, ended=time.time())
            else:
                record = ExitRecord(cause=CANCELLED, ended=time.time())
            self._never(name, prepared.folder, record)

    def withdraw_next(self, before: CommandId) -> None:
        """Do not start the command that waits for ``before``, if there is one."""
        if (waiting := self._successors.waiting_for(before)) is not None:
            self.withdraw(waiting)

    def withdraw_all(self) -> None:
        """Start no command that waits, but durable jobs."""
        self._successors.withdraw_all()
        for prepared in list(self._starts):
            if prepared.folder is None:
                self.withdraw(prepared.id)

    def start_next(self, before: CommandId) -> None:
        """Start the command that waits for ``before``, which is over, if there is one."""
        if (prepared := self._successors.take(before)) is not None:
            self._start(prepared)

    def on_reaped(self, command: Supervised) -> None:
        """The first process of a command is gone; perhaps it never became its program."""
        if command.verdict >= 0:
            self._on_verdict(command)
        elif self._starts.end(command.pid):  # it was given up
            self._start_waiting()

    def stop_hearing(self, command: Supervised) -> None:
        """Wait no longer to hear what became of a command's start.

        It counts for its caller until its process is gone: what it waits for may keep even SIGKILL waiting.
        """
        if command.verdict < 0:
            return
        if command.verdict in self._selector.get_map():
            self._selector.unregister(command.verdict)
        command.close_verdict()

    def _start(self, prepared: Prepared) -> None:
        try:
            command = prepared.start(may_take_long=self._starts.has_room(prepared.caller))
        except (OSError, ValueError) as error:
            self._fail(prepared.id, prepared.folder, describe_failure(error))
            return
        if command is None:
            self._starts.put(prepared)
            self._timers.after(START_SECONDS, prepared.id, self._give_up_waiting)
            return
        self._table.add(command)
        self._on_process(command)
        if command.verdict < 0:
            self._tell_started(command)
            return
        self._starts.begin(command.pid, prepared.caller)
        self._hear(command)
        if command.verdict >= 0:
            on_verdict = partial(self._on_verdict, command)
            self._selector.register(command.verdict, selectors.EVENT_READ, on_verdict)
            self._timers.after(START_SECONDS, command.id, self._give_up)

    def _tell_started(self, command: Supervised) -> None:
        if command.folder is not None:
            self._reports.tell_soon(Started(command.id, command.pid, command.started))

    def _hear(self, command: Supervised) -> None:
        """Go on with a command that has become its program; end one that could not."""
        failure = read_verdict(command.verdict)
        if failure is None:
            return
        self.stop_hearing(command)
        self._starts.end(command.pid, became=not failure)
        if failure:
            self._fail_process(command, failure)
        else:
            self._tell_started(command)

    def _on_verdict(self, command: Supervised, _: int = 0) -> None:
        if command.verdict >= 0:  # not heard in an earlier event of the same round
            self._hear(command)
            self._start_waiting()

    def _start_waiting(self) -> None:
        """Start what waited for other starts to be over."""
        while (prepared := self._starts.next()) is not None:
            self._start(prepared)

    def _give_up(self, name: CommandId) -> None:
        """End a command that has not become its program in time."""
        command = self._table.by_id.get(name)
        if command is None:
            return
        self._on_verdict(command)  # it may just have become it
        if command.verdict >= 0:
            os.kill(command.pid, signal.SIGKILL)
            self.stop_hearing(command)
            self._fail_process(command, f"{_IN_TIME}: its program or its working directory does not answer")

    def _give_up_waiting(self, name: CommandId) -> None:
        """Do not start a command after all that has not had its turn in time."""
        if patience := self._starts.patience(name):
            self._timers.after(patience, name, self._give_up_waiting)
        elif (prepared := self._starts.take(name)) is not None:
            prepared.close()
            others = f"{MAX_STARTING} others of the same caller are starting, and do not get on"
            self._fail(name, prepared.folder, f"{_IN_TIME}: {others}")

    def _fail_process(self, command: Supervised, reason: str) -> None:
        self._on_failure(command)
        self._fail(command.id, command.folder, reason)

    def _fail(self, name: CommandId, folder: Path | None, reason: str) -> None:
        self._never(name, folder, ExitRecord(error=reason, ended=time.time()))

    def _never(self, name: CommandId, folder: Path | None, record: ExitRecord) -> None:
        """Report a command that never became its program, and go on with the one behind it."""
        if folder is not None:
            self._reports.keep(name, folder, record)
        self._reports.tell(Ended(name, record))
        self.start_next(name)
