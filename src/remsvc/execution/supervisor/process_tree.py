"""Which processes belong to a command, and ending all of them. Linux; for the supervisor only.

The supervisor is a child subreaper: whatever a command starts stays below it in the process tree, however
often it forks and whatever sessions it makes. Where the host lets us have control groups, each command has
one (:mod:`remsvc.execution.supervisor.command_groups`), which tells its processes apart. A command that runs
as root, or as the owner of the control groups, can leave its group. For these commands, and for all where
there are no control groups, ancestry decides as well:

- what descends from the command's first process belongs to it, and so does what is in its session;
- a process whose parent has ended has become the supervisor's child. One that the command's own user runs,
  and that started after the command, may be the command's: its environment, or an output pipe of the
  command's that it holds open, says so. All of this is guarded from other users;
- a process that none of these rules assigns is counted as the command's if no other command of its user has
  run since this one began. Otherwise it is *doubtful*: it is left running, and named in the result.

A crowd of thousands takes seconds to be found and ended, and one that forks all the time may never be caught.
So it is ended a slice of time after the other, while the supervisor's loop does other things in between, and
what cannot be ended is given up in the end.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass

from remsvc.execution.supervisor.cgroup import group_path
from remsvc.execution.supervisor.command_groups import Group
from remsvc.execution.supervisor.processes import (
    ProcEntry,
    children,
    describe,
    environment,
    is_there,
    pipes_of,
    read_process,
    real_user,
    send_signal,
)
from remsvc.execution.supervisor.protocol import MARK
from remsvc.execution.supervisor.system_calls import prctl

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_MAX_DESCRIPTORS = 256
_MAX_ROUNDS = 100
_PAUSE_SECONDS = 0.02  # between looks whether anything is left
_FREEZE_SECONDS = 0.2
_REAP_SECONDS = 0.001
_NAMED = 5


def become_subreaper() -> None:
    """Make orphaned descendants this process's children. Raises ``OSError``."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


@dataclass(slots=True)
class Tree:
    """What tells a command's processes apart.

    Attributes:
        leader: pid of its first process, a session leader.
        mark: the value of ``REMSVC_COMMAND_ID`` in its environment.
        user: who its first process was started as.
        start_ticks: when that was, in ticks since the host started.
        pipes: inode numbers of its output pipes.
        reaped: the first process is gone, and its number may be somebody else's.
        group: the control group that its processes are in, and nothing else; None where there is none.
    """

    leader: int
    mark: str
    user: int
    start_ticks: int
    pipes: frozenset[int]
    reaped: bool = False
    group: Group | None = None

    def note_reaped(self) -> None:
        """Its first process is gone, and its number may be somebody else's."""
        self.reaped = True

    @property
    def may_leave(self) -> bool:
        """Whether its processes can be outside of its group."""
        return self.group is None or self.user in (0, os.geteuid())


def no_group(path: str) -> bool:
    """Whether a group is a command's, where no command has one."""
    del path
    return False


@dataclass(frozen=True, slots=True)
class Others:
    """The other commands of the supervisor.

    Attributes:
        leaders: their first processes.
        marks: of those of the same user.
        alone: no other command of the same user has run since this one began.
        grouped: whether the group that the kernel calls so is a command's.
    """

    leaders: Collection[int] = ()
    marks: Collection[str] = ()
    alone: bool = True
    grouped: Callable[[str], bool] = no_group


def walk(tree: Tree, others: Others, doubtful: set[ProcEntry]) -> Iterator[ProcEntry | None]:
    """Find a command's processes that have not ended. None is a place to pause at.

    Processes that may be the command's, which nothing tells, are put into ``doubtful``.
    """
    seen: set[int] = {os.getpid()}
    pending: list[int] = []
    if tree.group is not None:
        for process in tree.group.members():
            if process is None:
                yield None
            else:
                seen.add(process.pid)
                pending.append(process.pid)
                yield process
        if not tree.may_leave:
            return
    if not tree.reaped and tree.leader not in seen and (leader := read_process(tree.leader)):
        seen.add(leader.pid)
        pending.append(leader.pid)
        yield leader
    for pid in children(os.getpid()):
        if pid in seen or pid == tree.leader or pid in others.leaders:
            continue
        yield None
        orphan = read_process(pid)
        if orphan is None or orphan.parent != os.getpid():
            continue
        belongs = _belongs(orphan, tree, others)
        if belongs or (belongs is None and others.alone):
            seen.add(pid)
            pending.append(pid)
            yield orphan
        elif belongs is None:
            doubtful.add(orphan)
    while pending:
        parent = pending.pop()
        yield None
        for pid in children(parent):
            child = read_process(pid) if pid not in seen else None
            if child is not None and child.parent == parent:
                seen.add(pid)
                pending.append(pid)
                yield child
            yield None


def _belongs(orphan: ProcEntry, tree: Tree, others: Others) -> bool | None:
    """Whether a process without a parent of its own is the command's; None where nothing tells."""
    # Nobody can join a session: a process is in the session of its parent, or in a new one.
    if orphan.session in others.leaders:
        return False
    if orphan.session == tree.leader:
        return True
    if others.grouped(group_path(orphan.pid)):
        return False  # it is in a group, and not in this command's
    if orphan.start_ticks < tree.start_ticks or real_user(orphan.pid) != tree.user:
        return False
    marks = {
        variable.partition(b"=")[2].decode(errors="replace")
        for variable in environment(orphan.pid)
        if variable.startswith(f"{MARK}=".encode())
    }
    if tree.mark in marks or _holds(orphan.pid, tree.pipes):
        return True
    return False if not marks.isdisjoint(others.marks) else None


def _holds(pid: int, pipes: Collection[int]) -> bool:
    return any(pipe.inode in pipes for pipe in pipes_of(pid, _MAX_DESCRIPTORS))


class TreeEnd:
    """Ends all processes of a command, a slice of time after the other.

    To be called are first :meth:`terminate` or :meth:`kill`, then :meth:`work`.

    Args:
        others: tells of the other commands as they are now.
        orphans: tells how many processes have ended so far that may have been the command's, and were
            the first process of none.

    Attributes:
        ended: all that belonged to the command has ended.
        given_up: some of it is there still, and nobody waits for that any more.
        left: what is, or may be, for a person; empty for nothing.
    """

    def __init__(self, tree: Tree, others: Callable[[], Others], orphans: Callable[[], int]) -> None:
        self.ended = False
        self.given_up = False
        self.left = ""
        self._tree = tree
        self._others = others
        self._orphans = orphans
        self._doubtful: set[ProcEntry] = set()
        self._guarded: set[ProcEntry] = set()
        self._known: set[ProcEntry] = set()
        self._steps: Iterator[float] = iter(())
        self._deadline = float("inf")

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.ended or self.given_up

    def terminate(self) -> None:
        """Ask its processes to end."""
        self._steps = self._terminate()

    def kill(self, within: float) -> None:
        """End its processes, and give up ``within`` seconds after this was asked for first."""
        self._deadline = min(self._deadline, time.monotonic() + within)
        self._steps = self._kill(self._deadline)

    def work(self, until: float) -> float:
        """Go on until that time of the monotonic clock.

        Returns:
            Seconds until there may be something to do again; 0 where there is, or it is :attr:`over`.

        Raises:
            OSError: it cannot go on now; it begins anew the next time, with :meth:`kill`.
        """
        for pause in self._steps:
            if pause or time.monotonic() >= until:
                return pause
        return 0.0

    def _terminate(self) -> Iterator[float]:
        # SIGCONT, so that stopped ones see it.
        for number in (signal.SIGTERM, signal.SIGCONT):
            yield from self._signal_all(number)
        while True:
            began = time.monotonic()
            if (yield from self._none()):
                self._finish()
                return
            # Looking through a crowd is dear: not more than a quarter of the time.
            yield max(_PAUSE_SECONDS, 3 * (time.monotonic() - began))

    def _kill(self, deadline: float) -> Iterator[float]:
        if time.monotonic() > deadline:  # it was tried before, and failed
            self.given_up = True
            self.left = "could not be ended: this server could not look after its processes"
            return
        group = self._tree.group
        if group is not None:
            group.freeze()
            frozen_by = min(deadline, time.monotonic() + _FREEZE_SECONDS)
            while not group.frozen and not group.empty and time.monotonic() < frozen_by:
                yield 0.001
        if self._tree.may_leave:
            # None can fork away while its relatives are being found.
            yield from self._signal_all(signal.SIGSTOP, (time.monotonic() + deadline) / 2)
        killed: set[ProcEntry] = set()
        while True:
            began, before = time.monotonic(), len(killed)
            if (yield from self._none(killed)):
                break
            if time.monotonic() > deadline:
                self._give_up()
                break
            yield 0.0 if len(killed) > before else max(_PAUSE_SECONDS, time.monotonic() - began)
        if group is not None:
            group.freeze(False)
        if not self.given_up:
            self._finish()

    def _signal_all(self, number: signal.Signals, deadline: float = float("inf")) -> Iterator[float]:
        """Signal each process once, until no new one turns up."""
        signalled: set[ProcEntry] = set()
        quiet = 0
        # The kernel's list of children may miss one while others end (proc(5)): look twice.
        while quiet < 2 and time.monotonic() < deadline:
            quiet += 1
            for process in self._walk():
                if process is not None and process not in signalled:
                    quiet = 0
                    signalled.add(process)
                    self._send(process, number)
                yield 0.0

    def _none(self, killed: set[ProcEntry] | None = None) -> Generator[float, None, bool]:
        """Whether nothing is left; what is found goes into ``killed``, and is."""
        ended = self._orphans()
        if (yield from self._any(killed)):
            return False
        if not self._tree.may_leave:
            return True
        # Of a chain, each of whose links starts the next one and ends, none may have been there to be seen.
        yield _REAP_SECONDS
        return self._orphans() == ended

    def _any(self, killed: set[ProcEntry] | None = None) -> Generator[float, None, bool]:
        """Whether anything is left; what is found goes into ``killed``, and is."""
        for known in list(self._known) if killed is None else ():
            if is_there(known):
                return True
            self._known.discard(known)
            yield 0.0
        found = False
        for _ in range(2):  # as above
            for process in self._walk():
                yield 0.0
                if process is None:
                    continue
                found = True
                if killed is None:
                    self._known.add(process)
                    return True
                if process not in killed:
                    killed.add(process)
                    self._send(process, signal.SIGKILL)
            if found:
                break
        return found

    def _walk(self) -> Iterator[ProcEntry | None]:
        self._doubtful.clear()
        return walk(self._tree, self._others(), self._doubtful)

    def _send(self, process: ProcEntry, number: signal.Signals) -> None:
        if not send_signal(process, number):
            self._guarded.add(process)

    def _finish(self) -> None:
        self.ended = True
        if self._doubtful:
            self.left = f"may have left behind, as other commands of its user ran, {_names(self._doubtful)}"

    def _give_up(self) -> None:
        self.given_up = True
        left = {process for process in self._walk() if process is not None}
        if not left:
            self.left = "may have left processes behind that start others and end too quickly to be found"
            return
        why = ", some of which this server may not signal" if self._guarded & left else ""
        self.left = f"could not be ended whole: left are {_names(left)}{why}"


def _names(processes: set[ProcEntry]) -> str:
    first = sorted(processes, key=lambda process: process.start_ticks)[:_NAMED]
    more = f" and {len(processes) - len(first)} more" if len(processes) > len(first) else ""
    return f"process {', '.join(describe(process.pid) for process in first)}{more}"


def kill_marked(marks: Collection[str], users: Collection[int]) -> None:
    """SIGKILL the processes of these users that have one of these marks, and those in their sessions.

    For what a supervisor that ended left behind, where no group holds it: nothing else is known of it.
    """
    variables = {f"{MARK}={mark}".encode() for mark in marks}
    for _ in range(_MAX_ROUNDS):
        found = list(_marked(variables, users))
        if not found:
            return
        for process in found:
            if not send_signal(process, 9):
                return


def _marked(variables: set[bytes], users: Collection[int]) -> Iterator[ProcEntry]:
    sessions = set()
    others = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        process = read_process(pid) if real_user(pid) in users else None
        if process is None or pid == os.getpid():
            continue
        if not variables.isdisjoint(environment(pid)):
            if process.pid == process.session:
                sessions.add(pid)
            yield process
        else:
            others.append(process)
    yield from (process for process in others if process.session in sessions)
