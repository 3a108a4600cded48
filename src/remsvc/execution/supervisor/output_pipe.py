"""The reading end of one output stream: keeps its head, counts the rest."""

from __future__ import annotations

import os

_MAX_READS = 32  # at 64 KiB each: more than the largest pipe an ordinary user may make (1 MiB) holds


class OutputPipe:
    """A non-blocking pipe, read in bounded memory.

    Attributes:
        fd: its descriptor; -1 once whoever owns it has closed it.
        head: the first bytes, at most ``limit`` of them.
        total: how many bytes came altogether.
        open: whether some process may still write to it.
    """

    def __init__(self, fd: int, limit: int, scratch: bytearray) -> None:
        """``scratch`` is room to read into; pipes of one thread may share it."""
        os.set_blocking(fd, False)
        self.fd = fd
        self.head = bytearray()
        self.total = 0
        self.open = True
        self._limit = limit
        self._scratch = scratch

    @property
    def inode(self) -> int:
        """Tells the pipe apart among the descriptors of other processes, until it is closed."""
        return os.fstat(self.fd).st_ino

    def read(self) -> bool:
        """Read what is there, once; False when nothing was."""
        try:
            size = os.readv(self.fd, [self._scratch])
        except BlockingIOError:
            return False
        if size == 0:
            self.open = False
            return False
        room = self._limit - len(self.head)
        if room > 0:
            self.head += self._scratch[: min(size, room)]
        self.total += size
        return True

    def stop_keeping(self) -> None:
        """Forget the head; what comes from now on is dropped."""
        self.head.clear()
        self._limit = 0

    def drain(self) -> None:
        """Read all that was in the pipe at this moment, even while others go on writing."""
        for _ in range(_MAX_READS):
            if not self.open or not self.read():
                return
