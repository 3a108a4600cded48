"""Finds out which paths the supervisor may touch without the risk of waiting for ever. Linux only.

A path can make whoever looks at it wait. It may lead into a file system that another process or another host
answers for (FUSE, NFS, autofs). And whoever owns a program may hold a lease on it, which its start has to
wait for. So a path is looked at step by step, and each step is taken only from a directory on a local disk.

Sources: openat2(2), open(2) ("O_PATH"), fcntl(2) ("Leases").
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import time

from remsvc.execution.supervisor.system_calls import system_call

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


_PATH = os.O_PATH | os.O_CLOEXEC
_MAX_STEPS = 100  # of a path, those of its links included
_MAX_SETTLED = 1000
_MAX_INTERPRETERS = 4
_MOUNTS_SECONDS = 1.0
_SETTLED_SECONDS = 5.0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

# linux/openat2.h; asm-generic/unistd.h
_SYS_OPENAT2 = 437
_AT_FDCWD = -100
_NO_SYMLINKS, _CACHED = 0x04, 0x20
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EPERM)  # before Linux 5.12, or a container's filter


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _OpenHow(_PATH | os.O_DIRECTORY, 0, _NO_SYMLINKS | _CACHED)
_HOW_REFERENCE, _HOW_SIZE = ctypes.byref(_HOW), ctypes.sizeof(_HOW)


class LocalPaths:
    """Remembers what was found out of paths, so that most starts need no look at all.

    A path is *settled* where nobody but root can put something else in its place, mount something over it,
    or hold a lease on it. That is believed for some seconds only, and not after a mount: meanwhile root may
    have given the path to somebody else.
    """

    def __init__(self) -> None:
        self._mounts = Mounts()
        self._settled: set[str] = set()
        self._unsettled: set[str] = set()  # directories that were looked at, and are not
        self._settled_in = self._mounts.generation
        self._cached_lookup = True
        self._looked_at = -_MOUNTS_SECONDS
        self._settled_until = 0.0

    def way(self, cwd: str, program: str, search: str, *, cwd_required: bool) -> Way | None:
        """How to start a program so that nothing can hold that up; None where something could.

        Args:
            cwd: its working directory.
            program: an absolute path, or a name that is looked up in ``search``.
            search: directories, as in ``PATH``.
            cwd_required: fail where the directory cannot be entered, instead of starting in ``/``.

        Raises:
            OSError: there is no such program or directory, or it may not be looked at.
            ValueError: a NUL in a path.
        """
        settled, now = self._settled, time.monotonic()
        if now > self._looked_at + _MOUNTS_SECONDS:
            self._looked_at = now
            self._mounts.refresh()
        if self._settled_in != self._mounts.generation or now > self._settled_until:
            self._settled_in = self._mounts.generation
            self._settled_until = now + _SETTLED_SECONDS
            settled.clear()
            self._unsettled.clear()
        if program in settled and cwd in settled:
            return Way(program, cwd)
        path = self._program(program, search)
        if path is None:
            return None
        if cwd in settled:
            return Way(path, cwd)
        try:
            folder = self._folder(cwd)
        except OSError:
            if cwd_required:
                raise
            return Way(path, "/")
        return None if folder is None else Way(path, folder)

    def _folder(self, path: str) -> str | int | None:
        """A directory that can be entered at once: settled, or open with ``O_PATH``."""
        if not path.startswith("/"):
            return None
        before = self._mounts.generation
        # One that turns out to be settled is not looked at the next time: worth a longer look once.
        if path in self._unsettled and self._cached_lookup and self._mounts.lead_to(path):
            # What the kernel remembers of paths it tells in one call, which never waits.
            name = path.encode(errors="surrogateescape")
            if b"\0" in name:
                raise ValueError("embedded null byte")
            try:
                folder = system_call(_SYS_OPENAT2, _AT_FDCWD, name, _HOW_REFERENCE, _HOW_SIZE)
            except OSError as error:
                self._cached_lookup = error.errno not in _UNSUPPORTED
            else:
                # So the mounts were what they seemed to be, and so was the path.
                if self._mounts.refresh() == before and self._mounts.has(folder):
                    return folder
                os.close(folder)
        found, settled = self._open(path)
        if found is None:
            return None
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            os.close(found)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if settled:
            os.close(found)
            self._settle(path)
            return path
        if len(self._unsettled) >= _MAX_SETTLED:
            self._unsettled.clear()
        self._unsettled.add(path)
        return found

    def _program(self, name: str, search: str) -> str | None:
        if "/" in name:
            return name if self._is_settled(name, stat.S_IFREG) else None
        for folder in search.split(":"):
            path = f"{folder}/{name}"
            try:
                if not self._is_settled(folder, stat.S_IFDIR):
                    return None
                os.lstat(path)
                if not self._is_settled(path, stat.S_IFREG):
                    return None
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            if os.access(path, os.X_OK):
                return path
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def _is_settled(self, path: str, kind: int, depth: int = 0) -> bool:
        if path in self._settled:
            return True
        if not path.startswith("/"):
            return False
        found, settled = self._open(path)
        if found is None:
            return False
        try:
            settled = settled and stat.S_IFMT(os.fstat(found).st_mode) == kind
        finally:
            os.close(found)
        if settled and kind == stat.S_IFREG:
            try:
                interpreter = _interpreter(path)
                settled = not interpreter or (
                    depth < _MAX_INTERPRETERS and self._is_settled(interpreter, kind, depth + 1)
                )
            except OSError:  # it may be started, but not read
                return False
        if settled:
            self._settle(path)
        return settled

    def _settle(self, path: str) -> None:
        if len(self._settled) >= _MAX_SETTLED:
            self._settled.clear()
        self._settled.add(path)

    def _open(self, path: str) -> tuple[int | None, bool]:
        """Open a path with ``O_PATH``, and whether all on the way to it is root's alone to change.

        None where a look at it could take long. Raises ``OSError``.
        """
        pending = path.split("/")[::-1]
        settled = True
        # The last one is where the walk is; the one before it, where a link has to be followed from.
        opened = [os.open("/", _PATH)]
        try:
            for _ in range(_MAX_STEPS):
                while pending and pending[-1] in ("", "."):
                    pending.pop()
                settled = settled and _is_roots(os.fstat(opened[-1]))
                if not pending:
                    return opened.pop(), settled
                # Opened so, not even what is mounted there is asked for anything.
                opened.append(os.open(pending.pop(), _PATH | os.O_NOFOLLOW, dir_fd=opened[-1]))
                if not self._mounts.has(opened[-1]):
                    return None, False
                if stat.S_ISLNK(os.fstat(opened[-1]).st_mode):
                    target = os.readlink("", dir_fd=opened[-1])
                    pending += target.split("/")[::-1]
                    os.close(opened.pop())
                    if target.startswith("/"):
                        opened.append(os.open("/", _PATH))
                if len(opened) > 1:
                    os.close(opened.pop(0))
            return None, False
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            for descriptor in opened:
                os.close(descriptor)


class Way:
    """How to start a program so that nothing can hold that up. Its owner closes it.

    Attributes:
        program: its path.
        folder: the working directory: a path, or a descriptor.
    """

    __slots__ = ("folder", "program")

    def __init__(self, program: str, folder: str | int) -> None:
        self.program = program
        self.folder = folder

    def close(self) -> None:
        """Close what is open."""
        if isinstance(self.folder, int):
            os.close(self.folder)


def _is_roots(status: os.stat_result) -> bool:
    return status.st_uid == 0 and not status.st_mode & _OTHERS_WRITE


def _interpreter(path: str) -> str:
    """The program that runs a script; empty for what is no script."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        begin = os.read(file, 256)
    finally:
        os.close(file)
    if not begin.startswith(b"#!"):
        return ""
    words = begin[2:].partition(b"\n")[0].split()
    return os.fsdecode(words[0]) if words else ""
