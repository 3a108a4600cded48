"""The commands of a supervisor: starting, reading, reaping and ending them, in its loop."""

from __future__ import annotations

import errno
import os
import selectors
import subprocess
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from remsvc.execution import process_tree
from remsvc.execution.cgroup import JobGroups
from remsvc.execution.engine import DRAIN_GRACE
from remsvc.execution.frames import Header
from remsvc.execution.lanes import Lanes
from remsvc.execution.supervised import Prepared, Pump, Supervised
from remsvc.execution.timers import Timers

SHUTDOWN_SECONDS = 5.0
"""How long to wait for a killed command, which may be stuck in the kernel."""

_MAX_LEFT_OPEN = 1024
_TELL_SECONDS = 0.005
_LOOK_SECONDS = 0.02
# A command that has ended by then is read once, at its end: its pipes hold more than most write.
_READ_SECONDS = 0.001


class Reports(Protocol):
    """Where the commands report to."""

    @property
    def behind(self) -> bool:
        """Whether more has been told than the server takes."""
        ...

    def tell(self, header: Header, *blobs: bytes) -> None:
        """Tell the server, if there is one."""
        ...

    def tell_soon(self, header: Header) -> None:
        """Tell the server with what it is told next, or when :meth:`say` is called."""
        ...

    def say(self) -> None:
        """Tell the server what it was to be told soon."""
        ...

    def keep(self, name: int | str, folder: Path, record: dict[str, Any]) -> None:
        """Keep how a durable job ended; ``folder`` has its files."""
        ...


class Supervision:
    """All commands of a supervisor.

    Args:
        selector: of the supervisor's loop.
        groups: control groups for the jobs, where they can be had.

    Attributes:
        timers: what is to be done for the commands, and when; see :meth:`run_timers`.
    """

    def __init__(self, selector: selectors.BaseSelector, groups: JobGroups | None, reports: Reports) -> None:
        self._selector = selector
        self._groups = groups
        self._reports = reports
        self._commands: dict[int | str, Supervised] = {}
        self._by_pid: dict[int, Supervised] = {}
        self._lanes = Lanes()
        self._read: set[int] = set()  # the pipes that the selector looks at
        self._left_open: OrderedDict[int, Pump] = OrderedDict()
        self.timers = Timers(self._commands)
        self._scratch = bytearray(65536)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self._commands)

    def __contains__(self, name: int | str) -> bool:
        return name in self._commands or name in self._lanes

    @property
    def jobs(self) -> list[Supervised]:
        """The durable jobs that have not ended."""
        return [command for command in self._commands.values() if command.folder]

    @property
    def has_jobs(self) -> bool:
        """Whether there are any."""
        return any(command.folder for command in self._commands.values())

    def on_disconnect(self) -> None:
        """The server has gone: nobody watches, and what is no durable job ends, or never starts."""
        self._lanes.withdraw_all()
        for command in list(self._commands.values()):
            command.watched = False
            if command.folder is None:
                self._end(command, "cancelled", kill=True)

    def cancel(self, name: int | str, *, kill: bool) -> None:
        """End a command, if it is still there, with a grace unless ``kill``.

        One that waits for it is withdrawn: its caller may have gone, too.
        """
        if command := self._commands.get(name):
            if (waiting := self._lanes.waiting_for(name)) is not None:
                self.withdraw(waiting)
            self._end(command, "cancelled", kill=kill)
        else:
            self.withdraw(name)

    def withdraw(self, name: int | str) -> None:
        """Do not start a command that waits for another one to end, if it still does."""
        if self._lanes.withdraw(name):
            self._reports.tell({"event": "ended", "id": name, "record": {"withdrawn": True}})

    def watch(self, name: int | str, on: bool) -> None:
        """Tell of the output of a command, if it is still there, from now on, or no more."""
        if command := self._commands.get(name):
            command.watched = on
            command.told = (0, 0)
            if on and command.totals != command.told:
                self._tell_totals(command)

    # A command's life

    def start(self, message: Header) -> None:
        """Start the command that a ``start`` message describes, once the one before it has ended."""
        try:
            prepared = Prepared(message, self._null, self._scratch)
        except (OSError, ValueError) as error:
            self._finish_unstarted(message, _describe(error))
            return
        if (before := message.get("after")) in self._commands and self._lanes.waiting_for(before) is None:
            self._lanes.put(prepared, before)
        else:
            self._start(prepared)

    def _start(self, prepared: Prepared) -> None:
        try:
            command = prepared.start(self._groups)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._finish_unstarted(prepared.header, _describe(error))
            return
        self._commands[command.id] = command
        self._by_pid[command.pid] = command
        self.timers.after(_READ_SECONDS, command.id, "read")
        if prepared.header["time_limit"] is not None:
            self.timers.after(prepared.header["time_limit"], command.id, "time limit")
        if command.folder is not None:
            self._reports.tell_soon(
                {"event": "started", "id": command.id, "pid": command.pid, "started": command.started}
            )

    def _start_next(self, name: int | str) -> None:
        """Start the command that waits for this one, if there is one."""
        if (prepared := self._lanes.take(name)) is not None:
            self._start(prepared)

    def _finish_unstarted(self, message: Header, error: str) -> None:
        record: dict[str, Any] = {"error": error, "ended": time.time(), "totals": [0, 0]}
        if job := message.get("job"):
            self._reports.keep(message["id"], Path(job["folder"]), record)
        self._reports.tell({"event": "ended", "id": message["id"], "record": record})
        self._start_next(message["id"])

    def _read_from_now_on(self, command: Supervised) -> None:
        for output in command.outputs:
            if output.open and output.fd not in self._read:
                self._read.add(output.fd)
                self._selector.register(output.fd, selectors.EVENT_READ, self._reader(command, output))

    def _reader(self, command: Supervised, output: Pump) -> Callable[[int], None]:
        def read(_: int) -> None:
            if output.fd < 0:
                return  # closed by an earlier event of the same round
            output.read()
            if not output.open:
                self._close(output)
                self._finish_if_possible(command)
            if command.watched and command.told != command.totals:
                self._tell_totals(command)

        return read

    def _tell_totals(self, command: Supervised) -> None:
        """Say at once that output has come, then at most every few milliseconds."""
        if command.told == (0, 0):
            command.told = command.totals
            self._reports.tell({"event": "output", "id": command.id, "totals": command.totals})
        elif not command.telling:
            command.telling = True
            self.timers.after(_TELL_SECONDS, command.id, "tell")

    def reap(self) -> None:
        """Take the statuses of all processes that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            command = self._by_pid.pop(pid, None)
            if command is None:
                continue  # an orphan that a command left behind
            command.status = os.waitstatus_to_exitcode(status)
            # What it wrote before it ended is in the pipes now.
            for output in command.outputs:
                output.drain()
            if command.drained and command.cause is None:
                self._start_next(command.id)  # nothing more can come of this one
            for output in command.outputs:
                if not output.open:
                    self._close(output)
            self.timers.after(DRAIN_GRACE, command.id, "drain")
            self._finish_if_possible(command)

    def _finish_if_possible(self, command: Supervised, *, waited: bool = False) -> None:
        if command.status is None or command.id not in self._commands:
            return
        if command.cause is not None and not command.given_up and self._members(command):
            return  # told to end, but not all of it has; the timers go on
        if command.drained or waited:
            self._finish(command)

    def _finish(self, command: Supervised) -> None:
        del self._commands[command.id]
        record = command.record()
        self._start_next(command.id)  # before anything that takes time
        heads = [bytes(output.head) for output in command.outputs] if command.folder is None else []
        if command.folder is not None:
            self._reports.keep(command.id, command.folder, record)
        self._reports.tell({"event": "ended", "id": command.id, "record": record}, *heads)
        for output in command.outputs:
            output.stop_keeping()
            if output.open:
                self._leave_open(output)
        if self._groups is not None and command.group is not None:
            self._groups.remove(command.group)

    def _leave_open(self, output: Pump) -> None:
        """Read on and drop: closing would kill a background process that still writes."""
        self._left_open[output.fd] = output

        def drop(_: int) -> None:
            if output.fd >= 0:
                output.read()
                if not output.open:
                    self._close(output)

        if output.fd in self._read:
            self._selector.modify(output.fd, selectors.EVENT_READ, drop)
        else:
            self._read.add(output.fd)
            self._selector.register(output.fd, selectors.EVENT_READ, drop)
        if len(self._left_open) > _MAX_LEFT_OPEN:
            self._close(next(iter(self._left_open.values())))

    def _close(self, output: Pump) -> None:
        """Close a pipe, once: afterwards its number may be another's."""
        if output.fd < 0:
            return
        self._left_open.pop(output.fd, None)
        if output.fd in self._read:
            self._read.discard(output.fd)
            self._selector.unregister(output.fd)
        os.close(output.fd)
        output.fd = -1
        output.open = False

    # Ending a command

    def _end(self, command: Supervised, cause: str, *, kill: bool) -> None:
        if command.status is not None and command.cause is None:
            return  # it has ended by itself
        if command.cause is None:
            command.cause = cause
        elif not kill:
            return
        if kill or command.kill_grace <= 0:
            self._kill(command)
        else:
            process_tree.terminate_tree(command.tree, self._other_leaders(command))
            self.timers.after(command.kill_grace, command.id, "kill")
            self._look(command)

    def _kill(self, command: Supervised) -> None:
        process_tree.kill_tree(command.tree, self._other_leaders(command))
        if command.folder is None:
            self.timers.after(SHUTDOWN_SECONDS, command.id, "give up")
        self._look(command)

    def _look(self, command: Supervised) -> None:
        if not command.looking:
            command.looking = True
            self.timers.after(_LOOK_SECONDS, command.id, "look")

    def _members(self, command: Supervised) -> set[int]:
        return process_tree.members(command.tree, self._other_leaders(command))

    def _other_leaders(self, command: Supervised) -> set[int]:
        return self._by_pid.keys() - {command.pid}

    # Timers

    def run_timers(self) -> None:
        """Do what has fallen due."""
        for name, purpose in self.timers.due():
            if command := self._commands.get(name):
                self._on_timer(command, purpose)

    def _on_timer(self, command: Supervised, purpose: str) -> None:
        if purpose == "time limit":
            self._end(command, "time limit", kill=command.folder is None)
        elif purpose == "read":
            self._reports.say()
            self._read_from_now_on(command)
        elif purpose == "kill":
            self._kill(command)
        elif purpose == "tell" and self._reports.behind:
            self.timers.after(_LOOK_SECONDS, command.id, "tell")  # the server stalls: this can wait
        elif purpose == "tell":
            command.telling = False
            command.told = command.totals
            self._reports.tell({"event": "output", "id": command.id, "totals": command.totals})
        elif purpose == "drain":
            self._finish_if_possible(command, waited=True)
        elif purpose == "give up":
            command.given_up = True
            self._finish_if_possible(command, waited=True)
        else:
            command.looking = False
            self._finish_if_possible(command, waited=True)
            if command.id in self._commands:
                self._look(command)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.E2BIG:
            return "the command and its environment are longer than the system can start"
        name = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{name}"
    return str(error)
