"""Finds out where this host lets the server make control groups (version 2) for commands.

Sources: cgroups(7); Documentation/admin-guide/cgroup-v2.rst; systemd's CGROUP_DELEGATION.md (who may write
where); fsopen(2) and fsmount(2), for a hierarchy that is mounted nowhere.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from remsvc.execution.supervisor.system_calls import system_call

_MOUNTS = Path("/proc/self/mountinfo")
_SYSTEMD = Path("/run/systemd/system")
# What systemd sets on a group that it leaves to a unit.
_DELEGATED = ("trusted.delegate", "user.delegate")

# The same numbers on all architectures that count from one table: asm-generic/unistd.h, linux/mount.h.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1
_ATTRS = 2 | 4 | 8  # nosuid, nodev, noexec


@dataclass(frozen=True, slots=True)
class GroupParent:
    """A control group below which the supervisor may make one for each command.

    Attributes:
        how: why it may, for a person.
        path: where the group is; None for this process's own group in a hierarchy that is mounted nowhere.
    """

    how: str
    path: Path | None

    def open(self) -> Path:
        """Where it is for this process, for as long as this process lives.

        Raises:
            OSError: the hierarchy cannot be had.
        """
        if self.path is not None:
            return self.path
        own = _own_path()
        return Path(_detached(), (own or "/").lstrip("/"))

    def to_argument(self) -> str:
        """What :meth:`from_argument` understands, in another process."""
        return str(self.path) if self.path is not None else _NOWHERE

    @classmethod
    def from_argument(cls, argument: str) -> GroupParent:
        """What :meth:`to_argument` made."""
        return cls("", None if argument == _NOWHERE else Path(argument))


_NOWHERE = "unmounted"


def find_parent(named: str) -> GroupParent | None:
    """Where groups may be made: ``named``, or what can be had without being told; None where nothing can."""
    if sys.platform != "linux":
        return None
    if named:
        return GroupParent("named by [jobs] cgroup", Path(named)) if _writable(Path(named)) else None
    group = own_group()
    if group is None:
        return _unmounted() if os.geteuid() == 0 and _own_path() is not None else None
    if not _writable(group):
        return None
    if any(_attribute(group, name) == b"1" for name in _DELEGATED):
        return GroupParent("delegated by systemd", group)
    if os.geteuid() != 0:
        # The system's groups belong to root: one that belongs to this user was given to it.
        return GroupParent("delegated", group) if group.stat().st_uid == os.geteuid() else None
    if _SYSTEMD.exists():
        return None  # all groups are systemd's that it has not delegated
    return GroupParent("no systemd manages them on this host", group)


def why_not() -> str:
    """Why none are used that nobody named, and what helps; for a person."""
    if sys.platform != "linux":
        return "this system has none"
    if find_parent("") is not None:
        return "they are switched off"
    group = own_group()
    if group is None and os.geteuid() != 0:
        return "version 2 is not mounted"
    if group is None:
        return "this kernel does not give them to this process"
    if not _writable(group):
        return f"{group} cannot be written to"
    return f"{group} was not delegated to this server (systemd: Delegate=yes)"


def own_group() -> Path | None:
    """The version-2 group that this process is in, where that is mounted."""
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return None
    own = _own_path()
    for fields in mounts:
        if own is not None and fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4], own.lstrip("/"))
    return None


def group_path(pid: int | str) -> str:
    """The version-2 group of a process, as the kernel writes it; empty where it is gone, or there is none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line[3:] for line in lines if line.startswith("0::")), "")


def _own_path() -> str | None:
    return group_path("self") or None


def _writable(group: Path) -> bool:
    return os.access(group / "cgroup.procs", os.W_OK)


def _attribute(group: Path, name: str) -> bytes:
    try:
        return os.getxattr(group, name)
    except OSError:
        return b""


def _unmounted() -> GroupParent | None:
    parent = GroupParent("a hierarchy of its own, mounted nowhere", None)
    try:
        usable = _writable(parent.open())
    except OSError:
        return None
    return parent if usable else None


@functools.cache
def _detached() -> str:
    """Mount the hierarchy nowhere: only this process reaches it, and it is gone with this process.

    Raises:
        OSError: the kernel does not know how (before Linux 5.2), or this process may not.
    """
    if platform.machine().startswith(("mips", "alpha")):
        raise OSError(None, "system calls have other numbers here")
    context = system_call(_FSOPEN, b"cgroup2", _CLOEXEC)
    try:
        system_call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return f"/proc/self/fd/{system_call(_FSMOUNT, context, _CLOEXEC, _ATTRS)}"
    finally:
        os.close(context)
