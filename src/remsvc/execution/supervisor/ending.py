"""Ends commands that are to end, and waits for the last output of those that end by themselves.

Either may take long for a single command. So the supervisor's loop does a little of it at a time, and serves
the other commands in between.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from remsvc.execution.supervisor.cgroup import group_path
from remsvc.execution.supervisor.command import CommandTable, Supervised
from remsvc.execution.supervisor.command_groups import CommandGroups
from remsvc.execution.supervisor.output_wait import OutputWait
from remsvc.execution.supervisor.process_tree import Others, TreeEnd, no_group
from remsvc.execution.supervisor.processes import session_of
from remsvc.execution.supervisor.protocol import DRAIN_GRACE

SHUTDOWN_SECONDS = 5.0
"""How long to wait for a killed command, which may be stuck in the kernel, or fork too fast."""

_SLICE_SECONDS = 0.003  # of each turn of the loop, for all ends together


class Owner(Protocol):
    """What :class:`Ending` asks of the supervision that it ends commands for."""

    def survive(self, command: Supervised, action: Callable[[Supervised], None]) -> None:
        """Do something for a command. What goes wrong is told, and the command is looked at again."""
        ...

    def later(self, seconds: float, command: Supervised, action: Callable[[Supervised], None]) -> None:
        """Do something for a command after some time, if it is still there."""
        ...

    def finish_if_possible(self, command: Supervised, *, waited: bool = False) -> None:
        """Finish a command, if it is over; ``waited`` where its output need not be waited for any more."""
        ...


class Ending:
    """Brings commands to their end, all that a supervisor has.

    Args:
        table: all commands.
        groups: their control groups, where they have any.
        owner: what finishes them.
    """

    def __init__(self, table: CommandTable, groups: CommandGroups | None, owner: Owner) -> None:
        self._table = table
        self._groups = groups
        self._owner = owner
        self._ends: dict[Supervised, TreeEnd] = {}  # of those that are being ended
        self._at_work: dict[Supervised, None] = {}  # in order, those whose ends the loop's next turns are for
        self._looks: deque[Supervised] = deque()  # those whose output may still be on its way
        self._waits: dict[Supervised, OutputWait] = {}  # of those whose output is waited for
        self._last_ends: dict[int, float] = {}  # of commands that ended by themselves, by user
        self._orphans: Counter[int] = Counter()  # ended processes that belong to no known command, by user

    @property
    def busy(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return bool(self._at_work or self._looks)

    @property
    def under_way(self) -> bool:
        """Whether any command is being ended."""
        return bool(self._ends)

    def end(self, command: Supervised, cause: str, *, kill: bool) -> None:
        """End a command for this cause, with its grace unless ``kill``, if it has not ended by itself."""
        if command.status is not None and command.cause is None:
            return
        if command.cause is None:
            command.end_for(cause)
        elif not kill:
            return
        end = self._ends.get(command)
        if end is None:
            others, orphans = partial(self._others, command), partial(self._orphans_of, command.user)
            end = self._ends[command] = TreeEnd(command.tree, others, orphans)
        if kill or command.kill_grace <= 0:
            self._kill(command)
        else:
            end.terminate()
            self._owner.later(command.kill_grace, command, self._kill)
            self._work_on(command)

    def look_for_output(self, command: Supervised) -> None:
        """Finish a command that has ended by itself, once no output of it is on its way any more."""
        if command.drained or command.cause is not None:
            self._owner.finish_if_possible(command, waited=True)
        else:
            self._looks.append(command)

    def go_on(self, command: Supervised) -> None:
        """Go on with the end of a command, which was interrupted."""
        end = self._ends.get(command)
        if end is not None and end.over:
            self._owner.finish_if_possible(command)
        elif end is not None:
            self._work_on(command)

    def is_over(self, command: Supervised) -> bool:
        """Whether all of a command that was told to end has ended and is reaped, or is given up."""
        end = self._ends.get(command)
        return end is not None and end.over and (command.status is not None or end.given_up)

    def left(self, command: Supervised) -> str:
        """What a command left behind, or of its output may be missing, for a person; empty for nothing."""
        end, wait = self._ends.get(command), self._waits.get(command)
        return "; ".join(filter(None, (end.left if end else "", wait.note if wait else "")))

    def forget(self, command: Supervised) -> None:
        """A command is over, or has never become its program."""
        self._ends.pop(command, None)
        self._at_work.pop(command, None)
        self._waits.pop(command, None)

    def note_own_end(self, command: Supervised) -> None:
        """A command is over that has ended by itself: what it left behind may have been meant to stay."""
        self._last_ends[command.user] = time.monotonic()

    def note_orphan(self, pid: int, user: int) -> None:
        """Count a process that has ended where nothing tells which command it belonged to."""
        if pid in self._table.by_pid:
            return
        if self._groups is not None:
            known = self._groups.contain(group_path(pid))
        else:
            known = session_of(pid) in self._table.by_pid
        if not known:
            self._orphans[user] += 1

    def work(self) -> None:
        """Go on with the ends of commands, and with looking for their output, for a few milliseconds."""
        until = time.monotonic() + _SLICE_SECONDS
        for _ in range(len(self._at_work)):
            if not self._at_work:
                break
            if time.monotonic() >= until:
                return
            command = next(iter(self._at_work))
            del self._at_work[command]
            self._owner.survive(command, partial(self._work, until))
        while self._looks and time.monotonic() < until:
            command = self._looks.popleft()
            if command.id in self._table.by_id:
                self._owner.survive(command, self._look)

    def _work(self, until: float, command: Supervised) -> None:
        end = self._ends[command]
        try:
            pause = end.work(until)
        except OSError:
            end.kill(within=SHUTDOWN_SECONDS)
            raise
        if end.over:
            self._owner.finish_if_possible(command)
        elif pause:
            self._owner.later(pause, command, self.go_on)
        else:
            self._work_on(command)

    def _work_on(self, command: Supervised) -> None:
        self._at_work[command] = None

    def _kill(self, command: Supervised) -> None:
        end = self._ends[command]
        if not end.over:
            end.kill(within=SHUTDOWN_SECONDS)
            self._work_on(command)

    def _look(self, command: Supervised) -> None:
        """See whether output of a command that has ended is still on its way; then it is looked again."""
        if command.drained or command.cause is not None:
            self._owner.finish_if_possible(command, waited=True)
            return
        wait = self._waits.get(command)
        if wait is None:
            wait = self._waits[command] = OutputWait(command.output_wait)
        start = time.monotonic()
        if not wait.goes_on(command.tree, self._others(command), command.totals):
            self._owner.finish_if_possible(command, waited=True)
            return
        # However many of a caller are waited for, looking takes no more than a twentieth of the time.
        of_caller = sum(other.caller == command.caller for other in self._waits)
        pause = 20 * (time.monotonic() - start) * of_caller
        pause = max(DRAIN_GRACE, min(pause, wait.left))
        self._owner.later(pause, command, self.look_for_output)

    def _others(self, command: Supervised) -> Others:
        others = [other for other in self._table.by_id.values() if other is not command]
        same = [other for other in others if other.user == command.user]
        return Others(
            leaders={*self._table.by_pid, *(other.pid for other in others)} - {command.pid},
            marks={other.mark for other in same},
            # Otherwise what an earlier command left running on purpose could be taken for this one's.
            alone=not same and self._last_ends.get(command.user, 0.0) < command.start_clock,
            grouped=self._groups.contain if self._groups is not None else no_group,
        )

    def _orphans_of(self, user: int) -> int:
        # What root starts may become anybody's.
        return self._orphans.total() if user == 0 else self._orphans[user]
