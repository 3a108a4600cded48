"""Which processes belong to a command. Linux; asked by the supervisor only.

The supervisor is a child subreaper: whatever a command starts stays below it in the process tree, however
often it forks and whatever sessions it makes. Where the host lets us have control groups, each command has
one (:mod:`remsvc.execution.supervisor.command_groups`), which tells its processes apart. Root, and
whoever the groups belong to, can leave theirs: of their commands it is asked, too, who comes from whom,
as it is of all commands where there are no groups. Then

- what descends from the command's first process belongs to it, and so does what is in its session;
- a process whose parent has ended has become the supervisor's child. One that the command's own user runs,
  and that started after the command, may be the command's: its environment, or an output pipe of the
  command's that it holds open, says so. All of this is guarded from other users;
- one of which nothing tells whose it is belongs to the command if no other command of that user has run
  since the command began. Else it is *doubtful*: it is left alone, and named.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from remsvc.execution.supervisor.cgroup import group_path
from remsvc.execution.supervisor.command_groups import Group
from remsvc.execution.supervisor.processes import (
    ProcEntry,
    children,
    environment,
    pipes_of,
    read_process,
    real_user,
    send_signal,
)
from remsvc.execution.supervisor.protocol import MARK

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_MAX_DESCRIPTORS = 256
_MAX_ROUNDS = 100


def become_subreaper() -> None:
    """Make orphaned descendants this process's children. Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


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


def walk(command: Tree, others: Others, doubtful: set[ProcEntry]) -> Iterator[ProcEntry | None]:
    """The command's processes that have not ended; None is a place to pause at.

    Those that may be the command's are put into ``doubtful``.
    """
    seen: set[int] = {os.getpid()}
    pending: list[int] = []
    if command.group is not None:
        for process in command.group.members():
            if process is None:
                yield None
            else:
                seen.add(process.pid)
                pending.append(process.pid)
                yield process
        if not command.may_leave:
            return
    if not command.reaped and command.leader not in seen and (leader := read_process(command.leader)):
        seen.add(leader.pid)
        pending.append(leader.pid)
        yield leader
    for pid in children(os.getpid()):
        if pid in seen or pid == command.leader or pid in others.leaders:
            continue
        yield None
        orphan = read_process(pid)
        if orphan is None or orphan.parent != os.getpid():
            continue
        belongs = _belongs(orphan, command, others)
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


def _belongs(orphan: ProcEntry, command: Tree, others: Others) -> bool | None:
    """Whether a process without a parent of its own is the command's; None where nothing tells."""
    # Nobody can join a session: one is in the session of whoever started it, or in a new one.
    if orphan.session in others.leaders:
        return False
    if orphan.session == command.leader:
        return True
    if others.grouped(group_path(orphan.pid)):
        return False  # it is in a group, and not in this command's
    if orphan.start_ticks < command.start_ticks or real_user(orphan.pid) != command.user:
        return False
    marks = {
        variable.partition(b"=")[2].decode(errors="replace")
        for variable in environment(orphan.pid)
        if variable.startswith(f"{MARK}=".encode())
    }
    if command.mark in marks or _holds(orphan.pid, command.pipes):
        return True
    return False if not marks.isdisjoint(others.marks) else None


def _holds(pid: int, pipes: Collection[int]) -> bool:
    return any(pipe.inode in pipes for pipe in pipes_of(pid, _MAX_DESCRIPTORS))


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
