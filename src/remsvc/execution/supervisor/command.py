"""A command as the supervisor knows it: ready to start, and started."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from remsvc.execution.supervisor.command_groups import CommandGroups, Group
from remsvc.execution.supervisor.forked_start import fork_start
from remsvc.execution.supervisor.local_paths import LocalPaths, Way
from remsvc.execution.supervisor.output import OutputFile, OutputPipe, OutputStream
from remsvc.execution.supervisor.process_tree import Tree
from remsvc.execution.supervisor.processes import start_ticks
from remsvc.execution.supervisor.protocol import MARK, NO_LIMITS, Start, SupervisorEvent, Wrote
from remsvc.execution.supervisor.records import CommandId, ExitRecord, LostOutput
from remsvc.execution.supervisor.spawn import NewSession, OpenFiles, spawn


class Reports(Protocol):
    """Takes what commands have to say: for the server, for a person, or to be kept for later."""

    @property
    def behind(self) -> bool:
        """Whether more has been told than the server takes."""
        ...

    def tell(self, event: SupervisorEvent) -> None:
        """Tell the server, if there is one."""
        ...

    def tell_soon(self, event: SupervisorEvent) -> None:
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


@dataclass(eq=False)
class Supervised:
    """A started command.

    Attributes:
        id: the server's number for it, or the id of a durable job.
        pid: its first process, a session leader.
        mark: what marks the environment of its processes.
        outputs: standard output and error.
        folder: a durable job's files; None for a command that lives and dies with the connection.
        caller: who asked for it.
        user: who it was started as.
        group: the control group that it is in, if it has one.
        time_limit: seconds until it is ended; None for no limit.
        kill_grace: seconds between TERM and KILL.
        output_wait: seconds that it is waited for output that others pass on, once it has ended.
        started: when that was, in seconds since the epoch.
        start_clock: the same, of the monotonic clock.
        verdict: while it is on its way to becoming its program, the descriptor that will tell whether it
            did (:mod:`remsvc.execution.supervisor.forked_start`); else -1.
        status: the first process's exit code, or minus the signal's number; None until it is reaped.
        cause: why it is being ended (:data:`~remsvc.execution.supervisor.records.TIME_LIMIT`,
            :data:`~remsvc.execution.supervisor.records.CANCELLED`); None where it is not.
    """

    id: CommandId
    pid: int
    mark: str
    outputs: tuple[OutputStream, OutputStream]
    folder: Path | None
    caller: str
    user: int
    group: Group | None
    time_limit: float | None
    kill_grace: float
    output_wait: float
    verdict: int
    started: float = field(default_factory=time.time)
    start_clock: float = field(default_factory=time.monotonic)
    status: int | None = None
    cause: str | None = None
    _watched: bool = False
    _told: tuple[int, int] = (0, 0)
    _tree: Tree | None = None

    @property
    def tree(self) -> Tree:
        """What tells its processes apart. To be asked first before its first process is reaped."""
        if self._tree is None:
            inodes = frozenset(output.inode for output in self.outputs if output.fd >= 0)
            ticks = start_ticks(self.pid) if self.status is None else 0
            reaped = self.status is not None
            self._tree = Tree(self.pid, self.mark, self.user, ticks, inodes, reaped, self.group)
        return self._tree

    @property
    def totals(self) -> tuple[int, int]:
        """Bytes of standard output and error so far."""
        return self.outputs[0].total, self.outputs[1].total

    @property
    def drained(self) -> bool:
        """Whether nothing more can come from its outputs."""
        return not (self.outputs[0].open or self.outputs[1].open)

    def close_verdict(self) -> None:
        """Close what tells whether it has become its program."""
        os.close(self.verdict)
        self.verdict = -1

    def reap(self, status: int) -> None:
        """Note how its first process ended."""
        self.status = status
        if self._tree is not None:
            self._tree.note_reaped()

    def end_for(self, cause: str) -> None:
        """Note that it is being ended, and why."""
        self.cause = cause

    # What the server is told of its output

    def watch(self, on: bool) -> None:
        """Tell of its output from now on, or no more."""
        self._watched = on
        self._told = (0, 0)

    @property
    def has_news(self) -> bool:
        """Whether the server wants to hear of output that it has not been told of."""
        return self._watched and self._told != self.totals

    @property
    def has_told(self) -> bool:
        """Whether the server was told of any output since it began to watch."""
        return self._told != (0, 0)

    def news(self) -> Wrote:
        """What the server is told of its output now."""
        self._told = self.totals
        return Wrote(self.id, self._told)

    # Its end

    def record(self, left: str) -> ExitRecord:
        """How it ended, as it goes to the server and onto disk; ``left`` is what it left behind."""
        status = self.status  # None where its first process is stuck, and nobody waits for it any more
        stdout, stderr = self.outputs
        return ExitRecord(
            exit_code=status if status is not None and status >= 0 else None,
            signal=-status if status is not None and status < 0 else None,
            cause=self.cause,
            totals=self.totals,
            gaps=(stdout.gap, stderr.gap),
            lost=self._lost(),
            started=self.started,
            ended=time.time(),
            left=left,
        )

    def _lost(self) -> LostOutput | None:
        """How many bytes of a job's output could not be stored, and why."""
        stdout, stderr = self.outputs
        if not stdout.lost and not stderr.lost:
            return None
        return LostOutput(stdout.lost, stderr.lost, stdout.why_lost if stdout.lost else stderr.why_lost)


class CommandTable:
    """The commands of a supervisor that have started.

    Attributes:
        by_id: those that have not ended.
        by_pid: those whose first process has not been reaped.
    """

    def __init__(self) -> None:
        self.by_id: dict[CommandId, Supervised] = {}
        self.by_pid: dict[int, Supervised] = {}

    def add(self, command: Supervised) -> None:
        """Take in a command whose first process is there."""
        self.by_id[command.id] = command
        self.by_pid[command.pid] = command


class Launcher:
    """What the supervisor needs to start commands, the same for all of them.

    Args:
        groups: control groups for the commands, where they can be had.
        complain: told what commands do not get, and why.

    Attributes:
        null: the null device, open.
        scratch: room that outputs are read into.
        session: what gives each of them a session of its own.
        paths: what is known of paths that nobody can make a start wait at.
        open_files: how many files each may open.
    """

    def __init__(self, groups: CommandGroups | None, complain: Callable[[str], None]) -> None:
        self.groups = groups
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.scratch = bytearray(65536)
        self.session = NewSession(complain)
        self.paths = LocalPaths()
        self.open_files = OpenFiles()


class Prepared:
    """A command that is ready to start, with its pipes and its standard input open.

    Whoever made it starts it or closes it.

    Args:
        order: what is to be started.
        launcher: what starts it.

    Attributes:
        caller: whose it is.
        folder: a durable job's files, else None.
        pid, started: None; as of :class:`Supervised`.

    Raises:
        OSError: something cannot be opened; nothing is left open.
    """

    pid: int | None = None
    started: float | None = None

    def __init__(self, order: Start, launcher: Launcher) -> None:
        self.order = order
        self.id = order.id
        self.caller = order.caller
        self._opened: list[int] = []
        self._outputs: list[OutputStream] = []
        self._launcher = launcher
        self.folder = order.folder
        self._stdin = launcher.null
        try:
            if order.job is not None and order.job.stdin:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                self._stdin = os.open(order.job.folder / "stdin", flags)
                self._opened.append(self._stdin)
            self._writers = [self._open_output(name) for name in ("stdout", "stderr")]
            launcher.open_files.make_room(self._writers[1])
        except BaseException:
            self.close()
            raise

    def _open_output(self, name: str) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._opened.append(writer)
        limit, scratch = self.order.output_limit, self._launcher.scratch
        try:
            if self.folder is None:
                self._outputs.append(OutputPipe(reader, limit, scratch))
            else:
                self._outputs.append(OutputFile(reader, self.folder / name, limit, scratch))
        except OSError:
            os.close(reader)
            raise
        return writer

    def start(self, *, may_take_long: bool) -> Supervised | None:
        """Start it, in a group of its own where there are any.

        Args:
            may_take_long: whether it may be started where something may hold that up.

        Returns:
            It; None where it was not started, because its start may take long.

        Raises:
            OSError, ValueError: it could not be started; nothing is left open.
        """
        order, launcher = self.order, self._launcher
        groups = launcher.groups
        entered = groups.entered(self.id) if groups else contextlib.nullcontext()
        way = None
        try:
            if order.credentials is None and order.limits is NO_LIMITS:
                search = order.env.get("PATH", "")
                way = launcher.paths.way(order.cwd, order.argv[0], search, cwd_required=order.cwd_required)
            # else it has something to do before it becomes the program
            if way is None and not may_take_long:
                return None
            with entered as group, launcher.session:
                pid, verdict = self._fork() if way is None else (self._spawn(way), -1)
        except BaseException:
            self.close()
            raise
        finally:
            if way is not None:
                way.close()
        started = time.time()
        for fd in self._opened:
            os.close(fd)
        return Supervised(
            self.id,
            pid,
            mark=order.env.get(MARK, ""),
            outputs=(self._outputs[0], self._outputs[1]),
            folder=self.folder,
            time_limit=order.time_limit,
            kill_grace=order.job.kill_grace if order.job is not None else 0.0,
            user=order.credentials.uid if order.credentials is not None else os.geteuid(),
            group=group,
            started=started,
            verdict=verdict,
            caller=self.caller,
            output_wait=order.output_wait,
        )

    def _spawn(self, way: Way) -> int:
        return spawn(
            (way.program, *self.order.argv[1:]),
            env=self.order.env,
            folder=way.folder,
            folder_required=self.order.cwd_required,
            streams=(self._stdin, self._writers[0], self._writers[1]),
            open_files=self._launcher.open_files,
        )

    def _fork(self) -> tuple[int, int]:
        order = self.order
        return fork_start(
            order.argv,
            env=order.env,
            cwd=order.cwd,
            cwd_required=order.cwd_required,
            credentials=order.credentials,
            streams=(self._stdin, self._writers[0], self._writers[1]),
            limits=order.limits,
            open_files=self._launcher.open_files.of_commands,
        )

    def close(self) -> None:
        """Do not start it after all."""
        for fd in self._opened:
            os.close(fd)
        for output in self._outputs:
            output.stop_keeping()
            output.close()
