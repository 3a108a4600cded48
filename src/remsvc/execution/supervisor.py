"""The supervisor: a small single-threaded process that starts, owns and reaps all commands.

It is a process of its own so that starting a command is cheap (nothing to copy, no gRPC threads
to be afraid of) and never blocks the server. It imports the standard library only. It ends when
the server's side of the socket closes, and ends every command then.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import OrderedDict
from dataclasses import dataclass

from remsvc.execution import process_tree
from remsvc.execution.engine import DRAIN_GRACE, Credentials
from remsvc.execution.frames import FrameReader, Header, encode_frame
from remsvc.execution.output_pipe import OutputPipe
from remsvc.execution.spawn import spawn

_MAX_LEFT_OPEN = 1024
_SHUTDOWN_SECONDS = 5.0


@dataclass(eq=False)
class _Command:
    number: int
    pid: int
    mark: str
    pipes: tuple[OutputPipe, OutputPipe]
    status: int | None = None
    timed_out: bool = False

    @property
    def tree(self) -> process_tree.Command:
        inodes = frozenset(pipe.inode for pipe in self.pipes)
        return process_tree.Command(self.pid, self.mark, inodes)


class Supervisor:
    """The loop. One instance a process."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._control.setblocking(False)
        self._frames = FrameReader()
        self._unsent = bytearray()
        self._selector = selectors.DefaultSelector()
        self._commands: dict[int, _Command] = {}
        self._by_pid: dict[int, _Command] = {}
        self._left_open: OrderedDict[int, OutputPipe] = OrderedDict()
        self._timers: list[tuple[float, int, str]] = []
        self._scratch = bytearray(65536)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._closing = False

    def run(self) -> None:
        """Serve until the server has gone, then end every command."""
        wakeup, wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            # A handler, not SIG_IGN: commands would inherit that. The server decides when to end.
            signal.signal(number, lambda *_: None)
        self._selector.register(wakeup, selectors.EVENT_READ, self._reap)
        self._selector.register(self._control, selectors.EVENT_READ, None)
        deadline: float | None = None
        while deadline is None or (self._commands and time.monotonic() < deadline):
            for key, events in self._selector.select(self._next_timer()):
                if key.fileobj is self._control:
                    self._serve_control(events)
                elif isinstance(key.data, tuple):
                    self._read_output(*key.data)
                else:
                    with contextlib.suppress(BlockingIOError):
                        while len(os.read(wakeup, 4096)) == 4096:
                            pass
                    self._reap()
            self._run_timers()
            if self._closing and deadline is None:
                deadline = time.monotonic() + _SHUTDOWN_SECONDS
                for command in list(self._commands.values()):
                    self._kill(command)

    # The server's side

    def _serve_control(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if not events & selectors.EVENT_READ:
            return
        try:
            data = self._control.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(self._control)
            self._closing = True
            return
        for header, _ in self._frames.feed(data):
            if header["op"] == "start":
                self._start(header)
            elif command := self._commands.get(header["id"]):
                self._kill(command)

    def _send(self, header: Header, *blobs: bytes) -> None:
        self._unsent += encode_frame(header, blobs)
        self._flush()

    def _flush(self) -> None:
        if self._closing:
            self._unsent.clear()
            return
        try:
            while self._unsent:
                del self._unsent[: self._control.send(self._unsent)]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._unsent.clear()  # the reading side notices, and closes
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if self._selector.get_key(self._control).events != events:
            self._selector.modify(self._control, events, None)

    # A command's life

    def _start(self, header: Header) -> None:
        number: int = header["id"]
        mark: str = header["env"].get(process_tree.MARK, "")
        ends: list[int] = []
        try:
            for _ in range(2):
                ends += os.pipe2(os.O_CLOEXEC)
            credentials = header["credentials"]
            pid = spawn(
                header["argv"],
                env=header["env"],
                cwd=header["cwd"],
                credentials=credentials and Credentials(*credentials),
                streams=(self._null, ends[1], ends[3]),
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            for fd in ends:
                os.close(fd)
            self._send({"id": number, "error": _describe(error)})
            return
        os.close(ends[1])
        os.close(ends[3])
        limit: int = header["output_limit"]
        pipes = (OutputPipe(ends[0], limit, self._scratch), OutputPipe(ends[2], limit, self._scratch))
        command = _Command(number, pid, mark, pipes)
        self._commands[number] = command
        self._by_pid[pid] = command
        for pipe in pipes:
            self._selector.register(pipe.fd, selectors.EVENT_READ, (command, pipe))
        if header["time_limit"] is not None:
            heapq.heappush(self._timers, (time.monotonic() + header["time_limit"], number, "time limit"))

    def _read_output(self, command: _Command | None, pipe: OutputPipe) -> None:
        if pipe.fd < 0:
            return  # closed by an earlier event of the same round
        pipe.read()
        if not pipe.open:
            self._close(pipe)
            if command is not None and command.number in self._commands:
                self._finish_if_drained(command)

    def _reap(self) -> None:
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
            for pipe in command.pipes:
                pipe.drain()
                if not pipe.open:
                    self._close(pipe)
            heapq.heappush(self._timers, (time.monotonic() + DRAIN_GRACE, command.number, "drain"))
            self._finish_if_drained(command)

    def _finish_if_drained(self, command: _Command) -> None:
        if command.status is not None and not any(pipe.open for pipe in command.pipes):
            self._finish(command)

    def _finish(self, command: _Command) -> None:
        del self._commands[command.number]
        assert command.status is not None
        out, err = command.pipes
        self._send(
            {
                "id": command.number,
                "exit_code": command.status if command.status >= 0 else None,
                "signal": -command.status if command.status < 0 else None,
                "timed_out": command.timed_out,
                "totals": [out.total, err.total],
            },
            bytes(out.head),
            bytes(err.head),
        )
        for pipe in command.pipes:
            if pipe.open:
                self._leave_open(pipe)

    def _leave_open(self, pipe: OutputPipe) -> None:
        """Read on and drop: closing would kill a background process that still writes."""
        pipe.stop_keeping()
        self._left_open[pipe.fd] = pipe
        self._selector.modify(pipe.fd, selectors.EVENT_READ, (None, pipe))
        if len(self._left_open) > _MAX_LEFT_OPEN:
            self._close(next(iter(self._left_open.values())))

    def _close(self, pipe: OutputPipe) -> None:
        """Close a pipe, once: afterwards its number may be another's."""
        if pipe.fd < 0:
            return
        self._left_open.pop(pipe.fd, None)
        self._selector.unregister(pipe.fd)
        os.close(pipe.fd)
        pipe.fd = -1
        pipe.open = False

    def _kill(self, command: _Command) -> None:
        if command.status is None:
            process_tree.kill_tree(command.tree, self._by_pid.keys() - {command.pid})

    # Timers

    def _next_timer(self) -> float | None:
        if self._timers:
            return max(0.0, self._timers[0][0] - time.monotonic())
        return 1.0 if self._closing else None

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, number, purpose = heapq.heappop(self._timers)
            command = self._commands.get(number)
            if command is None:
                continue
            if purpose == "drain":
                self._finish(command)
            elif command.status is None:
                command.timed_out = True
                self._kill(command)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.E2BIG:
            return "the command and its environment are longer than the system can start"
        name = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{name}"
    return str(error)


def main(fd: int) -> None:
    """Run a supervisor on the connected socket ``fd``."""
    os.chdir("/")
    os.umask(0o022)
    os.set_inheritable(fd, False)  # no command may have the server's ear
    process_tree.become_subreaper()
    with socket.socket(fileno=fd) as control:
        Supervisor(control).run()
