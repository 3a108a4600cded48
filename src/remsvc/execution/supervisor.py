"""The supervisor: a small single-threaded process that starts, owns and reaps all commands.

It is a process of its own so that starting a command is cheap (nothing to copy, no gRPC threads
to be afraid of) and never blocks the server, and so that durable jobs outlive the server. It
imports the standard library only.

A server talks to it over a socket (:mod:`remsvc.execution.frames`). When the connection breaks,
commands that are not durable jobs are ended; jobs go on, how they end is written to their folders,
and the next server connects to a socket in the state directory. Without a server and without
anything running, the supervisor ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remsvc.execution import process_tree, supervised
from remsvc.execution.cgroup import JobGroups
from remsvc.execution.engine import DRAIN_GRACE
from remsvc.execution.frames import VERSION, Header
from remsvc.execution.kept_records import KeptRecords
from remsvc.execution.spawn import open_more_files
from remsvc.execution.supervised import Pump, Supervised
from remsvc.execution.supervisor_link import Link, listen, note_end
from remsvc.execution.timers import Timers

_MAX_LEFT_OPEN = 1024
_SHUTDOWN_SECONDS = 5.0
_TELL_SECONDS = 0.005
_LOOK_SECONDS = 0.02
_MUCH = 1 << 16


class Supervisor:
    """The loop. One instance a process.

    Args:
        control: the connection to the server that started it.
        state_dir: where to listen for the next server; None to end with the connection.
        groups: control groups for the jobs, where they can be had.
    """

    def __init__(self, control: socket.socket, state_dir: Path | None, groups: JobGroups | None) -> None:
        self.instance = secrets.token_hex(8)
        self._selector = selectors.DefaultSelector()
        self._listener = listen(state_dir) if state_dir is not None else None
        self._groups = groups
        self._link: Link | None = None
        self._first = control
        self._commands: dict[int | str, Supervised] = {}
        self._by_pid: dict[int, Supervised] = {}
        self._ended = KeptRecords(_complain)
        self._left_open: OrderedDict[int, Pump] = OrderedDict()
        self._deadline: float | None = None
        self._state_dir = state_dir
        self._timers = Timers(self._commands)
        self._scratch = bytearray(65536)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve until there is neither a server nor anything to do."""
        wakeup, wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            # A handler, not SIG_IGN: commands would inherit that. The server decides when to end.
            signal.signal(number, lambda *_: None)
        self._selector.register(wakeup, selectors.EVENT_READ, lambda _: self._reap(wakeup))
        if self._listener is not None:
            self._selector.register(self._listener, selectors.EVENT_READ, lambda _: self._accept())
        self._connect(self._first)
        while not self._idle():
            for key, events in self._selector.select(self._next_timer()):
                self._survive(key.data, events)
            self._survive(self._run_timers)
        if self._state_dir is not None:
            with contextlib.suppress(OSError):
                note_end(self._state_dir, self.instance)

    def _idle(self) -> bool:
        """Whether there is neither a server nor anything left to do for the next one."""
        if self._link is None:
            self._ended.try_again()
        jobs = any(command.folder for command in self._commands.values())
        if self._link is not None or jobs or self._ended.unwritten:
            self._deadline = None
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + _SHUTDOWN_SECONDS
        # What is still there after that was killed, but is stuck in the kernel.
        return not self._commands or time.monotonic() > self._deadline

    def _survive(self, action: Callable[..., None], *arguments: Any) -> None:
        """An error must not cost the outcomes of all commands."""
        try:
            action(*arguments)
        except Exception:  # noqa: BLE001
            _complain(traceback.format_exc())

    # The server's side

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # gone again, or no descriptor is free
        # A server holds the state directory's lock: the one before is gone, whatever its socket says.
        self._disconnect()
        self._connect(connection)

    def _connect(self, connection: socket.socket) -> None:
        self._link = Link(connection, self._selector, self._receive, self._disconnect)
        known: list[Header] = [
            {"id": command.id, "pid": command.pid, "started": command.started}
            for command in self._commands.values()
            if command.folder
        ]
        known += [{"id": name, "record": record} for name, record in self._ended.all.items()]
        self._tell({"event": "hello", "version": VERSION, "instance": self.instance, "jobs": known})

    def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        link.close()
        for command in list(self._commands.values()):
            command.watched = False
            if command.folder is None:
                self._end(command, "cancelled", kill=True)
        self._ended.write_all()

    def _tell(self, header: Header, *blobs: bytes) -> None:
        if self._link is not None:
            self._link.send(header, blobs)

    def _receive(self, message: Header) -> None:
        operation = message.get("op")
        if operation == "start":
            self._start(message)
        elif operation == "forget":
            self._ended.forget(message["id"])
        elif command := self._commands.get(message.get("id", "")):
            if operation == "end":
                self._end(command, "cancelled", kill=message.get("kill", True))
            elif operation == "watch":
                command.watched = message["on"]
                command.told = (0, 0)
                if command.watched and command.totals != command.told:
                    self._tell_totals(command)

    # A command's life

    def _start(self, message: Header) -> None:
        if message["id"] in self._commands or message["id"] in self._ended:
            return  # never twice, whatever a server believes
        try:
            command = supervised.start(message, self._null, self._scratch, self._groups)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._finish_unstarted(message, _describe(error))
            return
        self._commands[command.id] = command
        self._by_pid[command.pid] = command
        for output in command.outputs:
            self._selector.register(output.fd, selectors.EVENT_READ, self._reader(command, output))
        if message["time_limit"] is not None:
            self._timers.after(message["time_limit"], command.id, "time limit")
        if command.folder is not None:
            self._tell({"event": "started", "id": command.id, "pid": command.pid, "started": command.started})

    def _finish_unstarted(self, message: Header, error: str) -> None:
        record: dict[str, Any] = {"error": error, "ended": time.time(), "totals": [0, 0]}
        if job := message.get("job"):
            self._keep_record(message["id"], Path(job["folder"]), record)
        self._tell({"event": "ended", "id": message["id"], "record": record})

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
            self._tell({"event": "output", "id": command.id, "totals": command.totals})
        elif not command.telling:
            command.telling = True
            self._timers.after(_TELL_SECONDS, command.id, "tell")

    def _reap(self, wakeup: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(wakeup, 4096)) == 4096:
                pass
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
                if not output.open:
                    self._close(output)
            self._timers.after(DRAIN_GRACE, command.id, "drain")
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
        heads = [bytes(output.head) for output in command.outputs] if command.folder is None else []
        if command.folder is not None:
            self._keep_record(command.id, command.folder, record)
        self._tell({"event": "ended", "id": command.id, "record": record}, *heads)
        for output in command.outputs:
            output.stop_keeping()
            if output.open:
                self._leave_open(output)
        if self._groups is not None and command.group is not None:
            self._groups.remove(command.group)

    def _keep_record(self, name: int | str, folder: Path, record: dict[str, Any]) -> None:
        self._ended.keep(name, folder, record)
        if self._link is None:
            self._ended.write(name)

    def _leave_open(self, output: Pump) -> None:
        """Read on and drop: closing would kill a background process that still writes."""
        self._left_open[output.fd] = output

        def drop(_: int) -> None:
            if output.fd >= 0:
                output.read()
                if not output.open:
                    self._close(output)

        self._selector.modify(output.fd, selectors.EVENT_READ, drop)
        if len(self._left_open) > _MAX_LEFT_OPEN:
            self._close(next(iter(self._left_open.values())))

    def _close(self, output: Pump) -> None:
        """Close a pipe, once: afterwards its number may be another's."""
        if output.fd < 0:
            return
        self._left_open.pop(output.fd, None)
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
            self._timers.after(command.kill_grace, command.id, "kill")
            self._look(command)

    def _kill(self, command: Supervised) -> None:
        process_tree.kill_tree(command.tree, self._other_leaders(command))
        if command.folder is None:
            self._timers.after(_SHUTDOWN_SECONDS, command.id, "give up")
        self._look(command)

    def _look(self, command: Supervised) -> None:
        if not command.looking:
            command.looking = True
            self._timers.after(_LOOK_SECONDS, command.id, "look")

    def _members(self, command: Supervised) -> set[int]:
        return process_tree.members(command.tree, self._other_leaders(command))

    def _other_leaders(self, command: Supervised) -> set[int]:
        return self._by_pid.keys() - {command.pid}

    # Timers

    def _next_timer(self) -> float | None:
        wait = self._timers.wait()
        return 1.0 if wait is None and self._link is None else wait

    def _run_timers(self) -> None:
        for name, purpose in self._timers.due():
            if command := self._commands.get(name):
                self._on_timer(command, purpose)

    def _on_timer(self, command: Supervised, purpose: str) -> None:
        if purpose == "time limit":
            self._end(command, "time limit", kill=command.folder is None)
        elif purpose == "kill":
            self._kill(command)
        elif purpose == "tell" and self._link is not None and self._link.backlog > _MUCH:
            self._timers.after(_LOOK_SECONDS, command.id, "tell")  # the server stalls: this can wait
        elif purpose == "tell":
            command.telling = False
            command.told = command.totals
            self._tell({"event": "output", "id": command.id, "totals": command.totals})
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


def _complain(text: str) -> None:
    """Say it where the server that started this supervisor writes its log, if that is still read."""
    with contextlib.suppress(OSError):
        print(f"remsvc supervisor: {text}", file=sys.stderr)  # noqa: T201


def _describe(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.E2BIG:
            return "the command and its environment are longer than the system can start"
        name = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{name}"
    return str(error)


def main(fd: int, state_dir: str, groups: str) -> None:
    """Run a supervisor on the connected socket ``fd``; ``state_dir`` and ``groups`` may be empty."""
    os.chdir("/")
    os.umask(0o022)
    os.set_inheritable(fd, False)  # no command may have the server's ear
    process_tree.become_subreaper()
    open_more_files()
    with socket.socket(fileno=fd) as control:
        job_groups = JobGroups(Path(groups)) if groups else None
        Supervisor(control, Path(state_dir) if state_dir else None, job_groups).run()
