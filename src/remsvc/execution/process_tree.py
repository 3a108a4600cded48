"""Ending everything that a command started. Linux; called by the supervisor only.

The supervisor is a child subreaper: whatever a command starts stays below it in the process
tree, however often it forks and whatever sessions it makes. A process whose parent has ended
becomes the supervisor's own child; it is told apart by a mark that it inherited and cannot lose by
accident (:class:`Marked`), by its session, by its process group, by the mark in its environment, or by
holding the command's output pipe open. Where the host lets us have control groups
(:mod:`remsvc.execution.cgroup`) nothing has to be told apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import stat
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from remsvc.execution.cgroup import group_members, kill_group
from remsvc.execution.engine import MARK

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_MAX_ROUNDS = 100
_LIMIT_BASE = 1 << 61  # microseconds: 73,000 years


def become_subreaper() -> None:
    """Make orphaned descendants this process's children. Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Marked:
    """What this process starts in the block carries ``mark``, and so does all that comes from it.

    The mark is a number far beyond any use, as the limit of time that a realtime process may take
    without a pause. Like every resource limit it is inherited over fork and exec, with another user
    and an empty environment, and everybody may read it in ``/proc/PID/limits``.
    """

    _own = resource.getrlimit(resource.RLIMIT_RTTIME)
    _free = _own[1] == resource.RLIM_INFINITY  # else somebody has a use for it

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __enter__(self) -> None:
        if self._free:
            resource.setrlimit(resource.RLIMIT_RTTIME, (_limit(self._mark), self._own[1]))

    def __exit__(self, *_: object) -> None:
        if self._free:
            resource.setrlimit(resource.RLIMIT_RTTIME, self._own)


def _limit(mark: str) -> int:
    data = mark.encode()
    return _LIMIT_BASE + (zlib.crc32(data) << 28 ^ zlib.crc32(data[::-1]))


def _limit_mark(pid: int) -> int:
    """The number by which the process is marked; 0 where it is not."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/limits").read_bytes().splitlines():
            if line.startswith(b"Max realtime timeout"):
                soft = line.split()[3]
                limit = int(soft) if soft.isdigit() else 0
                return limit if _LIMIT_BASE <= limit < 2 * _LIMIT_BASE else 0
    return 0


@dataclass(frozen=True, slots=True)
class Command:
    """What tells a command's processes apart.

    Attributes:
        leader: pid of its first process, a session leader.
        mark: the value of ``REMSVC_COMMAND_ID`` in its environment.
        pipes: inode numbers of its output pipes.
        reaped: the first process is gone, and its number may be somebody else's.
        group: the control group that all of them are in, and nothing else; None where there is none.
    """

    leader: int
    mark: str
    pipes: frozenset[int]
    reaped: bool = False
    group: Path | None = None


def kill_tree(command: Command, other_leaders: Collection[int]) -> None:
    """SIGKILL the command's processes, all of them.

    They are first stopped, round by round until no new one turns up, so that none can fork away
    while its relatives are being found. ``other_leaders`` are the other commands' first processes.
    """
    if command.group is not None:
        kill_group(command.group)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        _signal_all(command, other_leaders, number)


def terminate_tree(command: Command, other_leaders: Collection[int]) -> None:
    """SIGTERM to the command's processes, and SIGCONT, so that stopped ones see it."""
    for number in (signal.SIGTERM, signal.SIGCONT):
        _signal_all(command, other_leaders, number)


def _signal_all(command: Command, other_leaders: Collection[int], number: signal.Signals) -> None:
    signalled: set[tuple[int, int]] = set()
    quiet = 0
    for _ in range(_MAX_ROUNDS):
        found = {(pid, _start_time(pid)) for pid in members(command, other_leaders)}
        new = {(pid, started) for pid, started in found - signalled if started}
        # The kernel's list of children may miss one while others end (proc(5)): look twice.
        quiet = 0 if new else quiet + 1
        if quiet == 2:
            return
        for pid, started in new:
            _send(pid, started, number)
        signalled |= new


def members(command: Command, other_leaders: Collection[int]) -> set[int]:
    """Pids of the command's processes that have not ended."""
    if command.group is not None:
        return group_members(command.group)
    members = set() if command.reaped or not _start_time(command.leader) else {command.leader}
    for pid in _children(os.getpid()):
        if pid != command.leader and pid not in other_leaders and _belongs(pid, command):
            members.add(pid)
    pending = list(members)
    while pending:
        for pid in _children(pending.pop()):
            if pid not in members:
                members.add(pid)
                pending.append(pid)
    return members


def _belongs(orphan: int, command: Command) -> bool:
    fields = _stat_fields(orphan)
    if not fields or _has_ended(fields):
        return False
    if mark := _limit_mark(orphan):
        return mark == _limit(command.mark)
    if command.leader in (int(fields[2]), int(fields[3])):  # process group, session
        return True
    folder = Path("/proc", str(orphan))
    with contextlib.suppress(OSError):
        marks = [
            variable.partition(b"=")[2]
            for variable in (folder / "environ").read_bytes().split(b"\0")
            if variable.startswith(f"{MARK}=".encode())
        ]
        if marks:
            return command.mark.encode() in marks
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder / "fd"):
            with contextlib.suppress(OSError):
                status = entry.stat()
                if stat.S_ISFIFO(status.st_mode) and status.st_ino in command.pipes:
                    return True
    return False


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                children += map(int, text.split())
    return children


def _stat_fields(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on (proc(5)); empty where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _start_time(pid: int) -> int:
    fields = _stat_fields(pid)
    return int(fields[19]) if fields and not _has_ended(fields) else 0


def _has_ended(fields: list[str]) -> bool:
    # A process looks like a zombie, too, when only its first thread has ended.
    return fields[0] == "Z" and int(fields[17]) <= 1


def _send(pid: int, started: int, number: signal.Signals) -> None:
    """Signal the process ``pid`` that started at ``started``, and no other that got its number."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(pid)
        try:
            if _start_time(pid) == started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def kill_marked(marks: Collection[str]) -> None:
    """SIGKILL every process of this host that has one of these marks.

    For what a supervisor that ended left behind.
    """
    for _ in range(_MAX_ROUNDS):
        found = [(pid, _start_time(pid)) for pid in _marked(marks)]
        if not any(started for _, started in found):
            return
        for pid, started in found:
            if started:
                _send(pid, started, signal.SIGKILL)


def _marked(marks: Collection[str]) -> list[int]:
    pids = []
    limits = {_limit(mark) for mark in marks}
    variables = {f"{MARK}={mark}".encode() for mark in marks}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if limit := _limit_mark(pid):
            if limit in limits:
                pids.append(pid)
            continue
        with contextlib.suppress(OSError):
            if not variables.isdisjoint(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                pids.append(pid)
    return pids
