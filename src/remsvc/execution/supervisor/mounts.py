"""Which mounts nobody can make a process wait at: those that only local disks answer for. Linux only.

Sources: proc(5) ("mountinfo", "fdinfo"), poll(2) ("POLLPRI").
"""

from __future__ import annotations

import os
import select

_LOCAL_TYPES = frozenset(
    (
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "nilfs2"),
        *("tmpfs", "ramfs", "devtmpfs", "squashfs", "erofs", "iso9660", "udf", "vfat", "exfat", "ntfs3"),
    )
)
_ESCAPES = ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\"))


class Mounts:
    """The mounts of this process, as they are now.

    The file system that ``/`` is on counts as local whatever it is: the server is on it, too.

    Attributes:
        generation: rises whenever they are found to have changed.
    """

    def __init__(self) -> None:
        self._table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        changes = select.poll()
        changes.register(self._table, select.POLLPRI)
        self._poll = changes.poll
        self._local: set[int] = set()
        self._points: dict[str, bool] = {}
        self.generation = 0
        self._read()

    def refresh(self) -> int:
        """Look whether they have changed; the :attr:`generation` as it is then."""
        if self._poll(0):
            self.generation += 1
            self._read()
        return self.generation

    def has(self, descriptor: int) -> bool:
        """Whether a descriptor is on a local mount. No file system is asked."""
        if _mount_of(descriptor) in self._local:
            return True
        before = self.generation
        return self.refresh() != before and _mount_of(descriptor) in self._local

    def lead_to(self, path: str) -> bool:
        """Whether only local mounts are on the way to a path that has no links in it.

        False for one that is not written plainly, which is no mount's name, and may lead there all the same.
        """
        if "//" in path or "/." in path:
            return False
        points = self._points
        while path:
            if not points.get(path, True):
                return False
            path = path.rpartition("/")[0]
        return True

    def _read(self) -> None:
        os.lseek(self._table, 0, os.SEEK_SET)
        table = b""
        while piece := os.read(self._table, 1 << 16):
            table += piece
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            self._local = {_mount_of(root)}
        finally:
            os.close(root)
        self._points = {}
        for line in table.decode(errors="surrogateescape").splitlines():
            fields = line.split(" ")
            is_local = fields[fields.index("-") + 1] in _LOCAL_TYPES
            if is_local:
                self._local.add(int(fields[0]))
            point = fields[4]
            for escape, character in _ESCAPES:
                point = point.replace(escape, character)
            # One may lie over another one: all of them have to be local.
            self._points[point] = is_local and self._points.get(point, True)


def _mount_of(descriptor: int) -> int:
    """The number of the mount that a descriptor is on."""
    info = os.open(f"/proc/self/fdinfo/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(info, 1024)
    finally:
        os.close(info)
    return int(text.partition(b"mnt_id:")[2].split(None, 1)[0])
