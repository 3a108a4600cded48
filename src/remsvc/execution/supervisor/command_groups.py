"""Gives each command a control group, so that nothing it starts can get away or be taken for another's.

A process cannot leave its group, however it forks. Two can: root, and the user that the group belongs to.
Their processes :mod:`remsvc.execution.supervisor.process_tree` finds by other means as well.

The supervisor enters a command's group, starts the command, and leaves again: so the command is inside from
its first instruction on. The groups are *threaded* ones, below one domain that the supervisor is in, because
a thread may change between these without the lock that all forks and exits of the host take: between domains
that costs up to 30 ms where nothing has moved for a while (Linux 6.0 and later), here 10 microseconds
(docs/decisions/0015-ends-of-process-trees.md). They are used again once they are empty.

A threaded group has no ``cgroup.kill``: it is frozen, and what is in it killed, which a fork cannot outrun.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path

from remsvc.execution.supervisor.cgroup import group_path, own_group
from remsvc.execution.supervisor.processes import ProcEntry, process_of, read_file, read_process, send_signal
from remsvc.execution.supervisor.records import CommandId

_PREFIX = "remsvc-"
_OLD_PREFIX = "remsvc-job-"  # of the versions before: a domain for each job, beside the supervisor's group
_MARK = "user.remsvc.command"
_PASSING = "passing"
_SPARE = 32
_LOOKS = 256
LEFTOVERS_SECONDS = 1.0
"""How often what commands have left behind is looked at."""
_KILL_SECONDS = 5.0


def owner_of(state_dir: Path | None) -> str:
    """What the groups of a state directory's supervisors have in their names.

    Raises:
        OSError: it is not there.
    """
    if state_dir is None:
        return f"{os.getpid()}"
    status = state_dir.stat()
    return f"{status.st_dev:x}.{status.st_ino:x}"


class Group:
    """A group that one command's processes are in, and nothing else.

    Attributes:
        marked: whose it is, as was noted last.
        shared: this process is in it, too, and must not be frozen with it.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ``OSError``."""
        self.folder = folder
        self.shared = False
        self.marked = ""
        self._name = str(folder)
        self._tail = f"/{folder.parent.name}/{folder.name}/"
        self._threads = os.open(folder / "cgroup.threads", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._events = os.open(folder / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._threads)
            raise

    def enter(self) -> None:
        """Move this thread into the group. Raises ``OSError``."""
        os.pwrite(self._threads, b"0", 0)

    @property
    def empty(self) -> bool:
        """Whether all that was in it has ended. So it has where somebody removed it: that must be root."""
        return self._tells(b"populated 0")

    @property
    def frozen(self) -> bool:
        """Whether nothing in it runs."""
        return self._tells(b"frozen 1")

    def _tells(self, words: bytes) -> bool:
        try:
            return words in os.pread(self._events, 256, 0)
        except OSError:
            return True  # it was removed

    def freeze(self, on: bool = True) -> None:
        """Let nothing in it run, soon, or all of it again, where it is still there."""
        if not self.shared:
            with contextlib.suppress(OSError):
                (self.folder / "cgroup.freeze").write_text("1" if on else "0")

    def holds(self, path: str) -> bool:
        """Whether a process in the group that the kernel calls ``path`` is in this one."""
        return self._tail in f"{path}/"

    def members(self) -> Iterator[ProcEntry | None]:
        """Its processes that have not ended; None is a place to pause at."""
        seen = {-1, os.getpid()}
        for thread in _threads(self.folder):
            yield None
            pid = process_of(thread)
            if pid in seen:
                continue
            seen.add(pid)
            process = read_process(pid)
            # The number may have become another's since it was listed: what was just read may be that one.
            if process is not None and self.holds(group_path(pid)):
                yield process

    def mark(self, mark: str) -> None:
        """Note whose it is, for those who find it when this supervisor is gone."""
        self.marked = mark
        try:  # noqa: SIM105  each command pays for what is called here
            os.setxattr(self._name, _MARK, mark.encode())
        except OSError:
            pass  # before Linux 5.7 only root may

    def reusable(self) -> bool:
        """Whether all that was in it has ended, and what comes next would run. Raises ``OSError``."""
        events = os.pread(self._events, 256, 0)
        if b"populated 0" not in events:
            return False
        if b"frozen 0" not in events:  # by the command itself, or to be killed
            self.freeze(False)
        return True

    def note_shared(self) -> None:
        """Others than the command's processes are in it: it is never frozen."""
        self.shared = True

    def close(self) -> None:
        """Let go of it; it stays."""
        os.close(self._threads)
        os.close(self._events)


class GroupEntry:
    """This process in a command's group, for the time of a block. See :meth:`CommandGroups.entered`."""

    __slots__ = ("_group", "_groups", "_name")

    def __init__(self, groups: CommandGroups, name: CommandId) -> None:
        self._groups = groups
        self._name = name

    def __enter__(self) -> Group | None:
        self._group = self._groups.enter(self._name)
        return self._group

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._group is not None:
            self._groups.leave(self._group)
            if kind is not None:
                self._groups.give_back(self._group)


class CommandGroups:
    """The groups of one supervisor's commands, in a domain below ``parent``.

    Args:
        parent: a group that this process may make others below.
        owner: tells this supervisor and those before and after it from others on the host.

    Attributes:
        left: those that were given back while something was in them, to be looked at.

    Raises:
        OSError: they cannot be had.
    """

    def __init__(self, parent: Path, owner: str) -> None:
        _sweep(parent, owner)
        self._home = own_group() or parent
        self._folder = parent / f"{_PREFIX}{owner}-{os.urandom(4).hex()}"
        self._folder.mkdir()
        self._count = 0
        self._spare: list[Group] = []
        self.left: deque[Path] = deque()
        self._next_look = 0.0
        self._stuck = False
        try:
            (self._folder / "cgroup.procs").write_text("0")
            self._own = os.open(self._folder / "cgroup.threads", os.O_RDWR | os.O_CLOEXEC)
            group = self._make()
            group.enter()
            os.pwrite(self._own, b"0", 0)
            self._spare.append(group)
        except OSError:
            self.close()
            raise

    def entered(self, name: CommandId) -> GroupEntry:
        """What puts whatever this process starts in a block into a group; None where that cannot be done."""
        return GroupEntry(self, name)

    def enter(self, name: CommandId) -> Group | None:
        """Move this process into a group for a command. None where that cannot be done."""
        if self._stuck:
            return None
        try:
            group = self._spare.pop() if self._spare else self._make()
        except OSError:
            return None
        try:
            mark = name if isinstance(name, str) else _PASSING
            if mark != group.marked:
                group.mark(mark)
            group.enter()
        except OSError:
            group.close()
            _remove(group.folder)
            return None
        return group

    def leave(self, group: Group) -> None:
        """Move this process back."""
        try:
            os.pwrite(self._own, b"0", 0)
        except OSError:
            # Nothing is known to bring this about. What was started runs; no other is started here.
            self._stuck = True
            group.note_shared()

    def contain(self, path: str) -> bool:
        """Whether a process in the group that the kernel calls ``path`` is in a command's group."""
        return f"/{self._folder.name}/" in path

    def give_back(self, group: Group) -> None:
        """A command has ended: use its group again, or remove it once what was left in it has ended."""
        if not self._take_back(group):
            group.mark("")  # what a command leaves behind when it ends by itself may stay
            group.close()  # it may stay for ever, as may many others
            self.left.append(group.folder)

    def look(self) -> None:
        """Remove the groups whose last process has ended, if the last look is some time ago."""
        if not self.left or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LEFTOVERS_SECONDS
        for _ in range(min(len(self.left), _LOOKS)):
            folder = self.left.popleft()
            if b"populated 1" in read_file(f"{folder}/cgroup.events") or not _remove(folder):
                self.left.append(folder)

    def _take_back(self, group: Group) -> bool:
        """Use a group again, or remove it; False while something is in it."""
        try:
            if not group.reusable():
                return False
            if len(self._spare) < _SPARE:
                self._spare.append(group)
                return True
        except OSError:
            pass  # it was removed by somebody else
        group.close()
        _remove(group.folder)
        return True

    def _make(self) -> Group:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        try:
            (folder / "cgroup.type").write_text("threaded")
            return Group(folder)
        except OSError:
            _remove(folder)
            raise

    def close(self) -> None:
        """Remove what is not in use any more, at this process's end."""
        for group in self._spare:
            group.close()
            _remove(group.folder)
        for folder in self.left:
            _remove(folder)
        with contextlib.suppress(OSError):
            (self._home / "cgroup.procs").write_text("0")
        _remove(self._folder)


def kill_marked_groups(parent: Path, owner: str, ids: Collection[str]) -> None:
    """SIGKILL what is left of these jobs, which supervisors that have ended ran below ``parent``."""
    for folder in _domains(parent, owner):
        _kill_in(folder, ids)
        if not read_file(f"{folder}/cgroup.threads"):  # its supervisor has ended
            _remove(folder)
    for name in ids:
        with contextlib.suppress(OSError):
            (parent / f"{_OLD_PREFIX}{name}" / "cgroup.kill").write_text("1")


def _sweep(parent: Path, owner: str) -> None:
    """Remove what supervisors before this one left, and end what was to end with them."""
    for folder in parent.glob(f"{_OLD_PREFIX}*"):
        _remove(folder)
    for folder in _domains(parent, owner):
        if not read_file(f"{folder}/cgroup.threads"):  # its supervisor has ended
            _kill_in(folder, {_PASSING})
            _remove(folder)


def _domains(parent: Path, owner: str) -> list[Path]:
    return list(parent.glob(f"{_PREFIX}{owner}-*"))


def _kill_in(domain: Path, marks: Collection[str]) -> None:
    for folder in domain.glob("*/"):
        try:
            if os.getxattr(folder, _MARK).decode() not in marks:
                continue
            group = Group(folder)
        except OSError:
            continue
        with contextlib.suppress(OSError):
            _kill(group)
        group.close()


def _kill(group: Group) -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    group.freeze()
    while not group.empty and time.monotonic() < deadline:
        for process in group.members():
            if process is not None:
                send_signal(process, 9)
        time.sleep(0.005)
    group.freeze(False)


def _threads(folder: Path) -> Iterator[int]:
    """The numbers of the threads in a group, and in those that were made below it."""
    pending = [folder]
    while pending:
        group = pending.pop()
        yield from map(int, read_file(f"{group}/cgroup.threads").split())
        pending += group.glob("*/")


def _remove(folder: Path) -> bool:
    for below in folder.glob("*/"):
        _remove(below)
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True
