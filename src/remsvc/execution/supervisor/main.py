"""The supervisor: a small process with one thread that starts all commands, and ends and reaps them.

It is a process of its own for two reasons. Starting a command from it is cheap and never blocks the server:
it has little memory to copy, and no threads that hold locks. And durable jobs outlive the server, because
they are not the server's children. It imports the standard library only.

A server gives it orders over a socket (:mod:`remsvc.execution.supervisor.protocol`). When that connection
breaks, the supervisor ends the commands that are no durable jobs. Jobs go on: the supervisor writes how they
end into their folders, and the next server connects to a socket in the state directory. When there is neither
a server nor anything running, the supervisor ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remsvc.execution.supervisor.cgroup import GroupParent
from remsvc.execution.supervisor.command_groups import LEFTOVERS_SECONDS, CommandGroups, owner_of
from remsvc.execution.supervisor.commands import Supervision
from remsvc.execution.supervisor.ending import SHUTDOWN_SECONDS
from remsvc.execution.supervisor.frames import FrameHeader
from remsvc.execution.supervisor.link import Link, SupervisorListener, note_end
from remsvc.execution.supervisor.process_tree import become_subreaper
from remsvc.execution.supervisor.protocol import (
    VERSION,
    End,
    Forget,
    Hello,
    KnownJob,
    Order,
    Start,
    SupervisorEvent,
    WatchOutput,
    Withdraw,
    read_order,
)
from remsvc.execution.supervisor.records import CommandId, ExitRecord, KeptRecords
from remsvc.execution.supervisor.spawn import drop_ambient_capabilities, restore_signals

_MUCH = 1 << 16
_IDLE_SECONDS = 1.0  # between looks after the socket and the records, while there is no server


class Supervisor:
    """Waits for what happens (orders, output, ended processes, timers) and has it dealt with.

    Args:
        control: the connection to the server that started it.
        state_dir: where to listen for the next server; None to end with the connection.
        groups: control groups for the commands, where they can be had.
    """

    def __init__(self, control: socket.socket, state_dir: Path | None, groups: CommandGroups | None) -> None:
        self.instance = os.urandom(8).hex()  # without what the secrets module loads
        self._selector = selectors.DefaultSelector()
        self._listener = SupervisorListener(state_dir, _complain) if state_dir is not None else None
        self._groups = groups
        self._unreaped = False
        self._link: Link | None = None
        self._first = control
        self._commands = Supervision(self._selector, groups, self)
        self._ended = KeptRecords(_complain)
        self._deadline: float | None = None
        self._state_dir = state_dir

    def run(self) -> None:
        """Serve until there is neither a server nor anything to do."""
        wakeup, wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            # A handler, not SIG_IGN: commands would inherit that. The server decides when to end.
            signal.signal(number, lambda *_: None)
        self._selector.register(wakeup, selectors.EVENT_READ)
        if self._listener is not None:
            self._listener.open(self._selector, self._accept)
        self._connect(self._first)
        busy = False
        while not self._idle():
            ready = self._selector.select(0 if busy or self._unreaped else self._next_timer())
            if self._unreaped or any(key.fd == wakeup for key, _ in ready):
                self._survive(self._reap, wakeup)  # before all else: a command may wait for an end
            for key, events in ready:
                if key.fd != wakeup:
                    self._survive(key.data, events)
            self._survive(self._commands.run_timers)
            busy = self._commands.busy
            if busy:
                self._survive(self._commands.work)
            if self._groups is not None and self._groups.left:
                self._survive(self._groups.look)
        if self._groups is not None:
            self._groups.close()
        if self._state_dir is not None:
            with contextlib.suppress(OSError):
                note_end(self._state_dir, self.instance)

    def _idle(self) -> bool:
        """Whether there is neither a server nor anything left to do for the next one."""
        if self._link is None:
            self._ended.try_again()
            if self._listener is not None:
                self._listener.open(self._selector, self._accept)  # where its socket was removed
        if self._link is not None or self._commands.jobs or self._ended.unwritten:
            self._deadline = None
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + SHUTDOWN_SECONDS
        # What is still there after that was killed, but is stuck in the kernel.
        return not self._commands or time.monotonic() > self._deadline

    def _survive(self, action: Callable[..., None], *arguments: Any) -> None:
        """Do something; what goes wrong is told, and costs no command its outcome."""
        try:
            action(*arguments)
        except Exception:  # noqa: BLE001
            _complain(traceback.format_exc())

    # The server's side

    def _accept(self, connection: socket.socket) -> None:
        # A server holds the state directory's lock: the one before is gone, whatever its socket says.
        self._disconnect()
        self._connect(connection)

    def _connect(self, connection: socket.socket) -> None:
        self._link = Link(connection, self._selector, self._receive, self._disconnect)
        running = [KnownJob(str(job.id), job.pid, job.started) for job in self._commands.jobs]
        ended = [KnownJob(str(name), record=record) for name, record in self._ended]
        self.tell(
            Hello(
                version=VERSION,
                instance=self.instance,
                limits=True,
                can_start_after=True,
                groups=self._groups is not None,
                jobs=(*running, *ended),
            )
        )

    def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        link.close()
        self._commands.on_disconnect()
        self._ended.write_all()

    def _receive(self, header: FrameHeader) -> None:
        try:
            self._carry_out(read_order(header))
        except Exception:  # noqa: BLE001
            _complain(f"a message could not be carried out: {traceback.format_exc()}")

    def _carry_out(self, order: Order | None) -> None:
        if isinstance(order, Start):
            if order.id not in self._commands and order.id not in self._ended:
                self._commands.start(order)  # never twice, whatever a server believes
        elif isinstance(order, Forget):
            self._ended.forget(order.id)
        elif isinstance(order, End):
            self._commands.cancel(order.id, kill=order.kill)
        elif isinstance(order, Withdraw):
            self._commands.withdraw(order.id)
        elif isinstance(order, WatchOutput):
            self._commands.watch(order.id, order.on)

    def _reap(self, wakeup: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(wakeup, 4096)) == 4096:
                pass
        self._unreaped = self._commands.reap()

    def _next_timer(self) -> float | None:
        wait = self._commands.timers.wait()
        if self._groups is not None and self._groups.left:
            wait = LEFTOVERS_SECONDS if wait is None else min(wait, LEFTOVERS_SECONDS)
        if self._link is None:
            wait = _IDLE_SECONDS if wait is None else min(wait, _IDLE_SECONDS)
        return wait

    # What commands report

    @property
    def behind(self) -> bool:
        """See :class:`remsvc.execution.supervisor.command.Reports`."""
        return self._link is not None and self._link.backlog > _MUCH

    def tell(self, event: SupervisorEvent) -> None:
        """Tell the server, if there is one."""
        if self._link is not None:
            self._link.send(event)

    def tell_soon(self, event: SupervisorEvent) -> None:
        """See :class:`remsvc.execution.supervisor.command.Reports`."""
        if self._link is not None:
            self._link.put(event)

    def say(self) -> None:
        """See :class:`remsvc.execution.supervisor.command.Reports`."""
        if self._link is not None:
            self._link.flush()

    def complain(self, text: str) -> None:
        """See :class:`remsvc.execution.supervisor.command.Reports`."""
        _complain(text)

    def keep(self, name: CommandId, folder: Path, record: ExitRecord) -> None:
        """Keep how a job ended: on disk, where no server is there to write it down."""
        self._ended.keep(name, folder, record)
        if self._link is None:
            self._ended.write(name)


def _complain(text: str) -> None:
    """Say it where the server that started this supervisor writes its log, if that is still read."""
    # What callers sent may be in it: it must not look like a line of the server's log.
    shown = text.rstrip("\n").encode("unicode_escape").decode().replace("\\n", "\n    ")
    with contextlib.suppress(OSError):
        print(f"remsvc supervisor: {shown}", file=sys.stderr)  # noqa: T201


def _open_groups(argument: str, owner: str) -> CommandGroups | None:
    if not argument:
        return None
    try:
        return CommandGroups(GroupParent.from_argument(argument).open(), owner)
    except OSError as error:
        _complain(f"no control groups can be made for commands: {error}")
        return None


def main(fd: int, state_dir: str, groups: str) -> None:
    """Run a supervisor on the connected socket ``fd``; ``state_dir`` and ``groups`` may be empty."""
    os.chdir("/")
    os.umask(0o022)
    os.set_inheritable(fd, False)  # no command may have the server's ear
    become_subreaper()
    drop_ambient_capabilities()
    restore_signals()
    with socket.socket(fileno=fd) as control:
        folder = Path(state_dir) if state_dir else None
        Supervisor(control, folder, _open_groups(groups, owner_of(folder))).run()
