"""A control group (version 2) for each durable job, where the host lets us have them.

A process cannot leave its group, however it forks, and one write ends all of a group at once. Groups
are used where this process may make them: below its own group if that was delegated to it (systemd:
``Delegate=yes``), or below one that the administrator names.

Sources: cgroups(7); Documentation/admin-guide/cgroup-v2.rst ("cgroup.kill", "cgroup.events").
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")
# What systemd sets on a group that it leaves to a unit.
_PREFIX = "remsvc-job-"
_DELEGATED = ("trusted.delegate", "user.delegate")


class JobGroups:
    """Groups below ``parent``, which this process may write to."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._home = own_group() or Path("/")
        self._occupied: set[Path] = set()
        for group in parent.glob(f"{_PREFIX}*"):
            self.remove(group)  # of a supervisor before this one

    @contextlib.contextmanager
    def entered(self, job_id: str) -> Iterator[Path | None]:
        """Move this process into a new group, so that what it starts is in it from the first
        instruction on, and back. None where that cannot be done."""
        group = group_of(self._parent, job_id)
        try:
            group.mkdir()
            (group / "cgroup.procs").write_text("0")
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            yield None
            return
        try:
            yield group
        finally:
            (self._home / "cgroup.procs").write_text("0")

    def remove(self, group: Path) -> None:
        """Remove the group of a job that has ended, or when what it left behind has ended as well."""
        self._occupied.add(group)
        for candidate in list(self._occupied):
            if _remove(candidate):
                self._occupied.discard(candidate)


def group_of(parent: Path, job_id: str) -> Path:
    """The group of a job."""
    return parent / f"{_PREFIX}{job_id}"


def find_parent(named: str) -> Path | None:
    """Where groups may be made: ``named``, or the own group where it was delegated; else None."""
    if sys.platform != "linux":
        return None
    group = Path(named) if named else own_group()
    if group is None or not os.access(group / "cgroup.procs", os.W_OK):
        return None
    if not named and not any(_attribute(group, name) == b"1" for name in _DELEGATED):
        return None
    return group


def own_group() -> Path | None:
    """The version-2 group that this process is in."""
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
        paths = [line.partition("::")[2] for line in _OWN.read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return None
    for fields in mounts:
        if paths and fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4]) / paths[0].lstrip("/")
    return None


def kill_group(group: Path) -> None:
    """SIGKILL everything in the group, at once."""
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")  # since Linux 5.14


def group_members(group: Path) -> set[int]:
    """Pids of the group's processes that have not ended."""
    with contextlib.suppress(OSError):
        return set(map(int, (group / "cgroup.procs").read_text().split()))
    return set()


def _remove(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _attribute(group: Path, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return os.getxattr(group, name)
    return b""
