"""The commands of a supervisor: starting, reading, reaping and ending them, in its loop."""

from __future__ import annotations

import os
import selectors
import signal
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from remsvc.execution.supervisor.cgroup import group_path
from remsvc.execution.supervisor.command import Prepared, Pump, Supervised
from remsvc.execution.supervisor.command_groups import CommandGroups
from remsvc.execution.supervisor.forked_start import describe_failure, read_verdict
from remsvc.execution.supervisor.local_paths import LocalPaths
from remsvc.execution.supervisor.open_outputs import OpenOutputs
from remsvc.execution.supervisor.output_wait import OutputWait
from remsvc.execution.supervisor.process_tree import Others, no_group
from remsvc.execution.supervisor.processes import session_of
from remsvc.execution.supervisor.protocol import (
    DRAIN_GRACE,
    Ended,
    Event,
    Start,
    Started,
    Wrote,
)
from remsvc.execution.supervisor.records import (
    CANCELLED,
    TIME_LIMIT,
    CommandId,
    ExitRecord,
)
from remsvc.execution.supervisor.spawn import NewSession
from remsvc.execution.supervisor.starts import MAX_STARTING, START_SECONDS, Starts, Successors
from remsvc.execution.supervisor.timers import Timers
from remsvc.execution.supervisor.tree_end import TreeEnd

SHUTDOWN_SECONDS = 5.0
"""How long to wait for a killed command, which may be stuck in the kernel, or fork too fast."""

_TELL_SECONDS = 0.005
_LATER_SECONDS = 0.02
_SLICE_SECONDS = 0.003  # of each turn of the loop, for all ends together
_MAX_REAPED = 200  # in one turn
_AGAIN_SECONDS = 0.5
# A command that has ended by then is read once, at its end: its pipes hold more than most write.
_READ_SECONDS = 0.001


class Reports(Protocol):
    """Where the commands report to."""

    @property
    def behind(self) -> bool:
        """Whether more has been told than the server takes."""
        ...

    def tell(self, event: Event) -> None:
        """Tell the server, if there is one."""
        ...

    def tell_soon(self, event: Event) -> None:
        """Tell the server with what it is told next, or when :meth:`say` is called."""
        ...

    def say(self) -> None:
        """Tell the server what it was to be told soon."""
        ...

    def complain(self, text: str) -> None:
        """Say what is wrong where a person may read it."""
        ...

    def keep(self, name: CommandId, folder: Path, record: ExitRecord) -> None:
        """Keep how a durable job ended; ``folder`` has its files."""
        ...


class Supervision:
    """All commands of a supervisor.

    Args:
        selector: of the supervisor's loop.
        groups: control groups for the commands, where they can be had.

    Attributes:
        timers: what is to be done for the commands, and when; see :meth:`run_timers`.
        ends: the commands whose ends the loop's next turns are for; see :meth:`work`.
    """

    def __init__(
        self, selector: selectors.BaseSelector, groups: CommandGroups | None, reports: Reports
    ) -> None:
        self._selector = selector
        self._groups = groups
        self._reports = reports
        self._commands: dict[CommandId, Supervised] = {}
        self._by_pid: dict[int, Supervised] = {}
        self._successors = Successors()
        self._starts = Starts()
        self._paths = LocalPaths()
        self._session = NewSession(reports.complain)
        self._outputs = OpenOutputs(selector)
        self.ends: deque[Supervised] = deque()
        self._last_ends: dict[int, float] = {}  # of commands that ended by themselves, by user
        self._orphans: Counter[int] = Counter()  # how many have ended of which nothing tells whose, by user
        self._ending: set[CommandId] = set()
        self._waiting: dict[CommandId, str] = {}  # those whose output is waited for, and their callers
        self._looks: deque[Supervised] = deque()
        self.timers = Timers(self)
        self._scratch = bytearray(65536)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self._commands)

    def __contains__(self, name: object) -> bool:
        return name in self._commands or name in self._successors or name in self._starts

    @property
    def jobs(self) -> Sequence[Supervised | Prepared]:
        """The durable jobs that have not ended."""
        started = [command for command in self._commands.values() if command.folder]
        return [*started, *(prepared for prepared in self._starts if prepared.folder)]

    @property
    def has_jobs(self) -> bool:
        """Whether there are any."""
        return any(command.folder for command in self._commands.values()) or any(
            prepared.folder for prepared in self._starts
        )

    def on_disconnect(self) -> None:
        """The server has gone: nobody watches, and what is no durable job ends, or never starts."""
        self._successors.withdraw_all()
        for prepared in list(self._starts):
            if prepared.folder is None:
                self.withdraw(prepared.id)
        for command in list(self._commands.values()):
            command.watched = False
            if command.folder is None:
                self._end(command, CANCELLED, kill=True)

    def cancel(self, name: CommandId, *, kill: bool) -> None:
        """End a command, if it is still there, with a grace unless ``kill``.

        One that waits for it is withdrawn: its caller may have gone, too.
        """
        if command := self._commands.get(name):
            if (waiting := self._successors.waiting_for(name)) is not None:
                self.withdraw(waiting)
            self._end(command, CANCELLED, kill=kill)
        else:
            self.withdraw(name)

    def withdraw(self, name: CommandId) -> None:
        """Do not start a command that waits for another one to end or to start, if it still does."""
        if self._successors.withdraw(name):
            self._reports.tell(Ended(name, ExitRecord(withdrawn=True)))
        elif (prepared := self._starts.take(name)) is not None:
            if (waiting := self._successors.waiting_for(name)) is not None:
                self.withdraw(waiting)
            prepared.close()
            if prepared.folder is None:
                end = ExitRecord(withdrawn=True, ended=time.time())
            else:
                end = ExitRecord(cause=CANCELLED, ended=time.time())
            self._finish_unstarted(name, prepared.folder, end)

    def watch(self, name: CommandId, on: bool) -> None:
        """Tell of the output of a command, if it is still there, from now on, or no more."""
        if command := self._commands.get(name):
            command.watched = on
            command.told = (0, 0)
            if on and command.totals != command.told:
                self._tell_totals(command)

    # A command's life

    def start(self, order: Start) -> None:
        """Start a command, once the one before it has ended."""
        try:
            prepared = Prepared(order, self._null, self._scratch)
        except (OSError, ValueError) as error:
            # The files are this server's own: where they are is no caller's business.
            self._reports.complain(f"command {order.id} could not be prepared: {error}")
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._fail_unstarted(order.id, order.folder, f"it could not be prepared: {reason}")
            return
        before = order.after
        there = before in self._commands or before in self._starts
        if before is not None and there and self._successors.waiting_for(before) is None:
            self._successors.put(prepared, before)
        else:
            self._start(prepared)

    def _start(self, prepared: Prepared) -> None:
        try:
            command = prepared.start(
                self._groups,
                self._session,
                self._paths,
                may_take_long=self._starts.has_room(prepared.caller),
            )
        except (OSError, ValueError) as error:
            self._fail_unstarted(prepared.id, prepared.folder, describe_failure(error))
            return
        if command is None:
            self._starts.put(prepared)
            self.timers.after(START_SECONDS, prepared.id, "start")
            return
        self._commands[command.id] = command
        self._by_pid[command.pid] = command
        self.timers.after(_READ_SECONDS, command.id, "read")
        if prepared.order.time_limit is not None:
            self.timers.after(prepared.order.time_limit, command.id, "time limit")
        if command.verdict < 0:
            self._tell_started(command)
            return
        self._starts.begin(command.pid, prepared.caller)
        self._hear(command)
        if command.verdict >= 0:
            on_verdict = partial(self._on_verdict, command)
            self._selector.register(command.verdict, selectors.EVENT_READ, on_verdict)
            self.timers.after(START_SECONDS, command.id, "start")

    def _tell_started(self, command: Supervised) -> None:
        if command.folder is not None:
            self._reports.tell_soon(Started(command.id, command.pid, command.started))

    def _hear(self, command: Supervised) -> None:
        """Go on with a command that has become its program; end one that could not."""
        failure = read_verdict(command.verdict)
        if failure is None:
            return
        self._close_verdict(command)
        self._starts.end(command.pid, became=not failure)
        if failure:
            self._fail_start(command, failure)
        else:
            self._tell_started(command)

    def _on_verdict(self, command: Supervised, _: int = 0) -> None:
        if command.verdict >= 0:  # not heard in an earlier event of the same round
            self._hear(command)
            self._start_waiting()

    def _give_up_start(self, name: CommandId) -> None:
        """End a command that has not become its program in time, or has not had its turn."""
        limit = f"it could not be started within {START_SECONDS:g} s"
        if (command := self._commands.get(name)) is not None:
            self._on_verdict(command)  # it may just have become it
            if command.verdict >= 0:
                # It counts for its caller until it is gone: what it waits for may keep even SIGKILL waiting.
                os.kill(command.pid, signal.SIGKILL)
                self._close_verdict(command)
                self._fail_start(command, f"{limit}: its program or its working directory does not answer")
        elif patience := self._starts.patience(name):
            self.timers.after(patience, name, "start")
        elif (prepared := self._starts.take(name)) is not None:
            prepared.close()
            reason = f"{limit}: {MAX_STARTING} others of the same caller are starting, and do not get on"
            self._fail_unstarted(name, prepared.folder, reason)

    def _close_verdict(self, command: Supervised) -> None:
        if command.verdict in self._selector.get_map():
            self._selector.unregister(command.verdict)
        os.close(command.verdict)
        command.verdict = -1

    def _fail_start(self, command: Supervised, failure: str) -> None:
        del self._commands[command.id]
        self._ending.discard(command.id)
        for output in command.outputs:
            output.stop_keeping()
            self._outputs.close(output)
        if self._groups is not None and command.group is not None:
            self._groups.give_back(command.group)
        self._fail_unstarted(command.id, command.folder, failure)

    def _start_waiting(self) -> None:
        """Start what waited for other starts to be over."""
        while (prepared := self._starts.next()) is not None:
            self._start(prepared)

    def _start_next(self, name: CommandId) -> None:
        """Start the command that waits for this one, if there is one."""
        if (prepared := self._successors.take(name)) is not None:
            self._start(prepared)

    def _fail_unstarted(self, name: CommandId, folder: Path | None, reason: str) -> None:
        self._finish_unstarted(name, folder, ExitRecord(error=reason, ended=time.time()))

    def _finish_unstarted(self, name: CommandId, folder: Path | None, record: ExitRecord) -> None:
        if folder is not None:
            self._reports.keep(name, folder, record)
        self._reports.tell(Ended(name, record))
        self._start_next(name)

    def _read_from_now_on(self, command: Supervised) -> None:
        for output in command.outputs:
            self._outputs.read(output, partial(self._on_read, command, output))

    def _on_read(self, command: Supervised, output: Pump) -> None:
        if not output.open:
            self._finish_if_possible(command)
        if command.watched and command.told != command.totals:
            self._tell_totals(command)

    def _tell_totals(self, command: Supervised) -> None:
        """Say at once that output has come, then at most every few milliseconds."""
        if command.told == (0, 0):
            command.told = command.totals
            self._reports.tell(Wrote(command.id, command.totals))
        elif not command.telling:
            command.telling = True
            self.timers.after(_TELL_SECONDS, command.id, "tell")

    def reap(self) -> bool:
        """Take the statuses of processes that have ended. Whether there may be more."""
        for _ in range(_MAX_REAPED):
            # While something is being ended, orphans are looked at before nothing tells whose they were.
            looks = bool(self._ending)
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | (os.WNOWAIT if looks else 0))
            except ChildProcessError:
                return False
            if ended is None:
                return False
            if looks:
                if ended.si_pid not in self._by_pid and not self._is_known(ended.si_pid):
                    self._orphans[ended.si_uid] += 1
                os.waitpid(ended.si_pid, 0)
            command = self._by_pid.pop(ended.si_pid, None)
            if command is None:
                continue
            command.status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            self._survive(command, self._on_reaped)
        return True

    def _on_reaped(self, command: Supervised) -> None:
        if command.verdict >= 0:
            self._on_verdict(command)
        elif self._starts.end(command.pid):  # it was given up
            self._start_waiting()
        if command.id not in self._commands:
            return  # it never was its program
        # What it wrote before it ended is in the pipes now.
        for output in command.outputs:
            output.drain()
        if command.drained and command.cause is None:
            self._start_next(command.id)  # nothing more can come of this one
        for output in command.outputs:
            if not output.open:
                self._outputs.close(output)
        self.timers.after(DRAIN_GRACE, command.id, "drain")
        self._finish_if_possible(command)

    def _survive(self, command: Supervised, action: Callable[..., None], *arguments: Any) -> None:
        """An error with one command must cost no other's outcome, nor its own: it is tried again."""
        try:
            action(command, *arguments)
        except Exception:  # noqa: BLE001
            self._reports.complain(f"command {command.id}: {traceback.format_exc()}")
            self.timers.after(_AGAIN_SECONDS, command.id, "drain" if command.cause is None else "look")

    def _finish_if_possible(self, command: Supervised, *, waited: bool = False) -> None:
        if command.id not in self._commands:
            return
        if command.cause is not None:
            if command.end is None or not command.end.over:
                return  # told to end, but not all of it has; its end goes on
            if command.status is None and not command.end.given_up:
                return  # it is about to be reaped
        elif command.status is None or not (command.drained or waited):
            return
        for output in command.outputs:
            output.drain()  # the last words of one that has just ended
        self._finish(command)

    def _finish(self, command: Supervised) -> None:
        record = command.record()
        del self._commands[command.id]
        self._ending.discard(command.id)
        self._waiting.pop(command.id, None)
        if command.verdict >= 0:
            self._close_verdict(command)  # it could not be ended, and counts for its caller until it is gone
        self._start_next(command.id)  # before anything that takes time
        heads = None
        if command.folder is None:
            heads = (bytes(command.outputs[0].head), bytes(command.outputs[1].head))
        else:
            self._reports.keep(command.id, command.folder, record)
        self._reports.tell(Ended(command.id, record, heads))
        if command.cause is None:
            self._last_ends[command.user] = time.monotonic()
        for output in command.outputs:
            output.stop_keeping()
            if output.open:
                self._outputs.leave(output)
        if self._groups is not None and command.group is not None:
            self._groups.give_back(command.group)

    # Ending a command

    def _end(self, command: Supervised, cause: str, *, kill: bool) -> None:
        if command.status is not None and command.cause is None:
            return  # it has ended by itself
        if command.cause is None:
            command.cause = cause
        elif not kill:
            return
        if command.end is None:
            self._ending.add(command.id)
            command.end = TreeEnd(
                command.tree, lambda: self._others(command), lambda: self._orphans_of(command.user)
            )
        if kill or command.kill_grace <= 0:
            self._kill(command)
        else:
            command.end.terminate()
            self.timers.after(command.kill_grace, command.id, "kill")
            self._work_on(command)

    def _kill(self, command: Supervised) -> None:
        assert command.end is not None
        if not command.end.over:
            command.end.kill(within=SHUTDOWN_SECONDS)
            self._work_on(command)

    def _others(self, command: Supervised) -> Others:
        others = [other for other in self._commands.values() if other is not command]
        same = [other for other in others if other.user == command.user]
        return Others(
            leaders={*self._by_pid, *(other.pid for other in others)} - {command.pid},
            marks={other.mark for other in same},
            # Else what is left of those may have been meant to stay.
            alone=not same and self._last_ends.get(command.user, 0.0) < command.start_clock,
            grouped=self._groups.contain if self._groups is not None else no_group,
        )

    def _is_known(self, orphan: int) -> bool:
        """Whether something tells which command an ended process without a parent belonged to."""
        if self._groups is not None:
            return self._groups.contain(group_path(orphan))
        return session_of(orphan) in self._by_pid

    def _orphans_of(self, user: int) -> int:
        # What root starts may become anybody's.
        return self._orphans.total() if user == 0 else self._orphans[user]

    @property
    def busy(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return bool(self.ends or self._looks)

    def work(self) -> None:
        """Go on with the ends of commands, and with looking for their output, for a few milliseconds."""
        until = time.monotonic() + _SLICE_SECONDS
        for _ in range(len(self.ends)):
            command = self.ends.popleft()
            command.worked_on = False
            if command.id in self._commands:
                self._survive(command, self._go_on, until)
            if time.monotonic() >= until:
                return
        while self._looks and time.monotonic() < until:
            command = self._looks.popleft()
            self._survive(command, self._look_for_output)

    def _go_on(self, command: Supervised, until: float) -> None:
        assert command.end is not None
        try:
            pause = command.end.work(until)
        except OSError:
            command.end.kill(within=SHUTDOWN_SECONDS)
            raise
        if command.end.over:
            self._finish_if_possible(command)
        elif pause:
            self.timers.after(pause, command.id, "look")
        else:
            self._work_on(command)

    def _work_on(self, command: Supervised) -> None:
        if not command.worked_on:
            command.worked_on = True
            self.ends.append(command)

    # Timers

    def run_timers(self) -> None:
        """Do what has fallen due."""
        for name, purpose in self.timers.due():
            if purpose == "start":
                self._give_up_start(name)
            elif command := self._commands.get(name):
                self._survive(command, self._on_timer, purpose)

    def _on_timer(self, command: Supervised, purpose: str) -> None:
        if purpose == "time limit":
            self._end(command, TIME_LIMIT, kill=command.folder is None)
        elif purpose == "read":
            self._reports.say()
            self._read_from_now_on(command)
        elif purpose == "kill":
            self._kill(command)
        elif purpose == "tell" and self._reports.behind:
            self.timers.after(_LATER_SECONDS, command.id, "tell")  # the server stalls: this can wait
        elif purpose == "tell":
            command.telling = False
            command.told = command.totals
            self._reports.tell(Wrote(command.id, command.totals))
        elif purpose == "drain" and (command.drained or command.cause is not None):
            self._finish_if_possible(command, waited=True)
        elif purpose == "drain":
            self._looks.append(command)
        elif command.end is not None and command.end.over:
            self._finish_if_possible(command)
        elif command.end is not None:
            self._work_on(command)

    def _look_for_output(self, command: Supervised) -> None:
        """See whether output of a command that has ended is still on its way; then it is looked again."""
        if command.id not in self._commands:
            return
        if command.drained or command.cause is not None:
            self._finish_if_possible(command, waited=True)
            return
        if command.waiting is None:
            command.waiting = OutputWait(command.output_wait)
        began = time.monotonic()
        if not command.waiting.goes_on(command.tree, self._others(command), command.totals):
            self._finish_if_possible(command, waited=True)
            return
        self._waiting[command.id] = command.caller
        # However many of a caller are waited for, looking takes no more than a twentieth of the time.
        pause = 20 * (time.monotonic() - began) * list(self._waiting.values()).count(command.caller)
        self.timers.after(max(DRAIN_GRACE, min(pause, command.waiting.left)), command.id, "drain")
