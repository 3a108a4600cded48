"""The commands of a supervisor: their life in its loop, from order to exit record."""

from __future__ import annotations

import os
import selectors
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from remsvc.execution.supervisor.command import (
    CommandTable,
    Launcher,
    Prepared,
    Reports,
    Supervised,
)
from remsvc.execution.supervisor.command_groups import CommandGroups
from remsvc.execution.supervisor.ending import Ending
from remsvc.execution.supervisor.output import OpenOutputs, OutputStream
from remsvc.execution.supervisor.protocol import DRAIN_GRACE, Ended, Start
from remsvc.execution.supervisor.records import CANCELLED, TIME_LIMIT, CommandId
from remsvc.execution.supervisor.starting import Starting
from remsvc.execution.supervisor.timers import Timers

_TELL_SECONDS = 0.005
_LATER_SECONDS = 0.02
_MAX_REAPED = 200  # in one turn
_AGAIN_SECONDS = 0.5
# A command that has ended by then is read once, at its end: its pipes hold more than most write.
_READ_SECONDS = 0.001


class Supervision:
    """Looks after all commands of a supervisor, from the order to start one until its end is told.

    Args:
        selector: of the supervisor's loop.
        groups: control groups for the commands, where they can be had.
        reports: where the commands report to.

    Attributes:
        timers: what is to be done for the commands, and when; see :meth:`run_timers`.
    """

    def __init__(
        self, selector: selectors.BaseSelector, groups: CommandGroups | None, reports: Reports
    ) -> None:
        self._groups = groups
        self._reports = reports
        self._table = CommandTable()
        self._outputs = OpenOutputs(selector)
        self._telling: set[Supervised] = set()  # of whose output the server will be told in a moment
        self.timers = Timers(self)
        self._ending = Ending(self._table, groups, self)
        self._starting = Starting(
            Launcher(groups, reports.complain),
            self._table,
            selector,
            self.timers,
            reports,
            on_process=self._on_process,
            on_failure=self._drop,
        )

    def __len__(self) -> int:
        return len(self._table.by_id)

    def __contains__(self, name: object) -> bool:
        return name in self._table.by_id or name in self._starting

    @property
    def jobs(self) -> Sequence[Supervised | Prepared]:
        """The durable jobs that have not ended."""
        started = [command for command in self._table.by_id.values() if command.folder]
        return [*started, *self._starting.jobs]

    def on_disconnect(self) -> None:
        """The server has gone: nobody watches, and what is no durable job ends, or never starts."""
        self._starting.withdraw_all()
        for command in list(self._table.by_id.values()):
            command.watch(False)
            if command.folder is None:
                self._ending.end(command, CANCELLED, kill=True)

    def start(self, order: Start) -> None:
        """Start a command, once the one before it has ended."""
        self._starting.start(order)

    def cancel(self, name: CommandId, *, kill: bool) -> None:
        """End a command, if it is still there, with a grace unless ``kill``.

        One that waits for it is withdrawn: its caller may have gone, too.
        """
        if command := self._table.by_id.get(name):
            self._starting.withdraw_next(name)
            self._ending.end(command, CANCELLED, kill=kill)
        else:
            self._starting.withdraw(name)

    def withdraw(self, name: CommandId) -> None:
        """Do not start a command that waits for another one to end or to start, if it still does."""
        self._starting.withdraw(name)

    def watch(self, name: CommandId, on: bool) -> None:
        """Tell of the output of a command, if it is still there, from now on, or no more."""
        if command := self._table.by_id.get(name):
            command.watch(on)
            if command.has_news:
                self._tell_totals(command)

    def reap(self) -> bool:
        """Take the statuses of processes that have ended. Whether there may be more."""
        for _ in range(_MAX_REAPED):
            # While something is being ended, orphans are looked at before nothing tells whose they were.
            looks = self._ending.under_way
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | (os.WNOWAIT if looks else 0))
            except ChildProcessError:
                return False
            if ended is None:
                return False
            if looks:
                self._ending.note_orphan(ended.si_pid, ended.si_uid)
                os.waitpid(ended.si_pid, 0)
            command = self._table.by_pid.pop(ended.si_pid, None)
            if command is None:
                continue
            command.reap(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)
            self.survive(command, self._on_reaped)
        return True

    @property
    def busy(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return self._ending.busy

    def work(self) -> None:
        """Go on with the ends of commands for a few milliseconds."""
        self._ending.work()

    def run_timers(self) -> None:
        """Do what has fallen due."""
        for name, action in self.timers.due():
            action(name)

    # What the ends of commands need

    def survive(self, command: Supervised, action: Callable[[Supervised], None]) -> None:
        """See :class:`remsvc.execution.supervisor.ending.Owner`.

        An error with one command must cost no other's outcome, nor its own.
        """
        try:
            action(command)
        except Exception:  # noqa: BLE001
            self._reports.complain(f"command {command.id}: {traceback.format_exc()}")
            look = self._ending.look_for_output if command.cause is None else self._ending.go_on
            self.later(_AGAIN_SECONDS, command, look)

    def later(self, seconds: float, command: Supervised, action: Callable[[Supervised], None]) -> None:
        """See :class:`remsvc.execution.supervisor.ending.Owner`."""
        self.timers.after(seconds, command.id, partial(self._do, action))

    def finish_if_possible(self, command: Supervised, *, waited: bool = False) -> None:
        """See :class:`remsvc.execution.supervisor.ending.Owner`."""
        if command.id not in self._table.by_id:
            return
        if command.cause is not None:
            if not self._ending.is_over(command):
                return
        elif command.status is None or not (command.drained or waited):
            return
        for output in command.outputs:
            output.drain()  # the last words of one that has just ended
        self._finish(command)

    def _do(self, action: Callable[[Supervised], None], name: CommandId) -> None:
        if command := self._table.by_id.get(name):
            self.survive(command, action)

    # A command's life

    def _on_process(self, command: Supervised) -> None:
        self.later(_READ_SECONDS, command, self._read_from_now_on)
        if command.time_limit is not None:
            self.later(command.time_limit, command, self._expire)

    def _expire(self, command: Supervised) -> None:
        """End a command whose time limit is reached; a version-1 command has no grace."""
        self._ending.end(command, TIME_LIMIT, kill=command.folder is None)

    def _drop(self, command: Supervised) -> None:
        """A command has not become its program: nothing of it is kept."""
        del self._table.by_id[command.id]
        self._telling.discard(command)
        self._ending.forget(command)
        for output in command.outputs:
            output.stop_keeping()
            self._outputs.close(output)
        if self._groups is not None and command.group is not None:
            self._groups.give_back(command.group)

    def _read_from_now_on(self, command: Supervised) -> None:
        self._reports.say()
        for output in command.outputs:
            self._outputs.read(output, partial(self._on_read, command, output))

    def _on_read(self, command: Supervised, output: OutputStream) -> None:
        if not output.open:
            self.finish_if_possible(command)
        if command.has_news:
            self._tell_totals(command)

    def _tell_totals(self, command: Supervised) -> None:
        """Say at once that output has come, then at most every few milliseconds."""
        if not command.has_told:
            self._reports.tell(command.news())
        elif command not in self._telling:
            self._telling.add(command)
            self.later(_TELL_SECONDS, command, self._tell_more)

    def _tell_more(self, command: Supervised) -> None:
        if self._reports.behind:  # the server stalls: this can wait
            self.later(_LATER_SECONDS, command, self._tell_more)
            return
        self._telling.discard(command)
        self._reports.tell(command.news())

    def _on_reaped(self, command: Supervised) -> None:
        self._starting.on_reaped(command)
        if command.id not in self._table.by_id:
            return  # it never was its program
        # What it wrote before it ended is in the pipes now.
        for output in command.outputs:
            output.drain()
        if command.drained and command.cause is None:
            self._starting.start_next(command.id)  # nothing more can come of this one
        for output in command.outputs:
            if not output.open:
                self._outputs.close(output)
        self.later(DRAIN_GRACE, command, self._ending.look_for_output)
        self.finish_if_possible(command)

    def _finish(self, command: Supervised) -> None:
        record = command.record(self._ending.left(command))
        del self._table.by_id[command.id]
        self._telling.discard(command)
        self._ending.forget(command)
        self._starting.stop_hearing(command)
        self._starting.start_next(command.id)  # before anything that takes time
        heads = None
        if command.folder is None:
            heads = (bytes(command.outputs[0].head), bytes(command.outputs[1].head))
        else:
            self._reports.keep(command.id, command.folder, record)
        self._reports.tell(Ended(command.id, record, heads))
        if command.cause is None:
            self._ending.note_own_end(command)
        for output in command.outputs:
            output.stop_keeping()
            if output.open:
                self._outputs.leave(output)
        if self._groups is not None and command.group is not None:
            self._groups.give_back(command.group)
