"""The socket between server and supervisor: both ends of it, and how a later server finds the supervisor."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import selectors
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from remsvc.execution.supervisor.frames import FrameHeader, FrameReader
from remsvc.execution.supervisor.processes import read_process
from remsvc.execution.supervisor.protocol import Refused, SupervisorEvent

SOCKET_NAME = "supervisor.sock"
_END_PREFIX = "supervisor.ended."
_BACKLOG = 16
_PEER = "3i"  # struct ucred, socket(7)
_MAX_GENERATIONS = 10_000
_READ = 1 << 16  # memory that the system maps and unmaps for each call costs more than a second call


class Link:
    """One connection: orders in, events out, never blocking.

    Args:
        on_message: called with the header of each frame that came.
        on_end: called once when the other side has gone.
    """

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        on_message: Callable[[FrameHeader], None],
        on_end: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._selector = selector
        self._on_message = on_message
        self._on_end = on_end
        self._frames = FrameReader()
        self._unsent = bytearray()
        self._closed = False
        selector.register(connection, selectors.EVENT_READ, self._serve)

    def send(self, event: SupervisorEvent) -> None:
        """Send an event, now or when there is room. After the end it goes nowhere."""
        self.put(event)
        self.flush()

    def put(self, event: SupervisorEvent) -> None:
        """Send an event with the next one, or with :meth:`flush`."""
        if not self._closed:
            self._unsent += event.encode()

    def flush(self) -> None:
        """Send what was put, now or when there is room."""
        if not self._closed and self._unsent:
            self._flush()

    @property
    def backlog(self) -> int:
        """Bytes that the other side has not taken yet."""
        return len(self._unsent)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if not self._closed:
            self._closed = True
            self._selector.unregister(self._connection)
            self._connection.close()

    def _serve(self, events: int) -> None:
        if self._closed:
            return
        if events & selectors.EVENT_WRITE:
            self._flush()
        if not events & selectors.EVENT_READ:
            return
        try:
            data = self._connection.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_end()
            return
        try:
            for header, _ in self._frames.feed(data):
                self._on_message(header)
        except ValueError:
            self._on_end()  # nobody knows where the next message begins
            raise

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # reading notices, and ends it
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if self._selector.get_key(self._connection).events != events:
            self._selector.modify(self._connection, events, self._serve)


class SupervisorListener:
    """The socket in the state directory at which a supervisor waits for the next server.

    As long as the supervisor lives it holds the directory's lock. A server that does not find the socket
    learns from that lock that a supervisor lives, and waits until the socket is there again.

    Args:
        complain: called with what is wrong.
    """

    def __init__(self, state_dir: Path, complain: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._complain = complain
        self._socket: socket.socket | None = None
        self._lock = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._locked = False
        self._inode = 0
        self._trouble = ""

    def open(self, selector: selectors.BaseSelector, on_server: Callable[[socket.socket], None]) -> None:
        """Listen, if that is not so already, or if the socket's file is gone.

        The one of another supervisor is left alone: it came when this one could not be reached.
        """
        if not self._locked:
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._locked = True
        if self._socket is not None and (not self._locked or self._reachable()):
            return
        try:
            listener = _listen(self._state_dir)
            self._inode = (self._state_dir / SOCKET_NAME).stat().st_ino
        except OSError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                self._complain(f"no server can connect: {self._state_dir / SOCKET_NAME}: {error}")
            return
        if self._socket is not None:
            selector.unregister(self._socket)
            self._socket.close()
        self._socket, self._trouble = listener, ""
        selector.register(listener, selectors.EVENT_READ, lambda _: self._accept(listener, on_server))

    def _reachable(self) -> bool:
        """Whether the socket's file is there, or another supervisor's that is listened at."""
        with contextlib.suppress(OSError):
            if (self._state_dir / SOCKET_NAME).stat().st_ino == self._inode:
                return True
            other = connect(self._state_dir)
            if other is not None:
                other.close()
            return other is not None
        return False

    def _accept(self, listener: socket.socket, on_server: Callable[[socket.socket], None]) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # gone again, or no descriptor is free
        try:
            refusal = _why_refused(connection)
        except OSError as error:
            refusal = str(error)
        if refusal:
            with contextlib.suppress(OSError):  # it need not wait to be told
                connection.send(Refused(refusal).encode(), socket.MSG_DONTWAIT)
            connection.close()
            self._complain(f"a connection was refused: {refusal}")
            return
        on_server(connection)


def _why_refused(connection: socket.socket) -> str:
    """Why a connection is not taken for a server's; empty where it is.

    Two things can be proven: which user made it, and that no process above the one that made it was started
    by this supervisor. Nothing can be proven of a process that has ended: it may have left the connection to
    any other.
    """
    pid, user = peer_of(connection)
    if user != os.geteuid():
        return f"process {pid} runs as uid {user}"
    generation = read_process(pid)
    if generation is None:
        return f"process {pid} has ended"
    for _ in range(_MAX_GENERATIONS):
        if generation.pid == os.getpid():
            return f"process {pid} comes from a command"
        if generation.parent <= 1:
            return ""
        parent = read_process(generation.parent)
        if parent is None or parent.start_ticks > generation.start_ticks:
            return f"where process {pid} comes from cannot be told"
        generation = parent
    return f"where process {pid} comes from cannot be told"


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """The pid and the effective uid of the process that connected, or listens. Raises ``OSError``."""
    size = struct.calcsize(_PEER)
    pid, user, _ = struct.unpack(_PEER, connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, user


def _listen(state_dir: Path) -> socket.socket:
    """Listen in ``state_dir``, for its owner alone. Raises ``OSError``."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _opened(state_dir) as folder:
            (state_dir / SOCKET_NAME).unlink(missing_ok=True)
            mask = os.umask(0o177)
            try:
                listener.bind(_address(folder))
            finally:
                os.umask(mask)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(state_dir: Path) -> socket.socket | None:
    """Connect to the supervisor that listens in ``state_dir``; None where there is none.

    Never blocks.

    Raises:
        BlockingIOError: it has others to take first.
        OSError: it cannot be reached, or it is somebody else's.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        with _opened(state_dir) as folder:
            connection.connect(_address(folder))
        pid, user = peer_of(connection)
        if user != os.geteuid():
            raise PermissionError(errno.EPERM, f"process {pid} of uid {user} listens there")
    except BaseException as error:
        connection.close()
        if isinstance(error, FileNotFoundError | ConnectionError):
            return None
        raise
    return connection


def is_alive(state_dir: Path) -> bool:
    """Whether a supervisor of this state directory lives, reachable or not; as far as it holds the lock.

    Raises:
        OSError: it is not there.
    """
    with _opened(state_dir) as folder:
        try:
            fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass  # a file system without locks
    return False


def note_end(state_dir: Path, instance: str) -> None:
    """Note that the supervisor ``instance`` has ended, and left no job behind whose end is not known.

    A job that was claimed for it and has no exit record was never started. Raises ``OSError``.
    """
    path = _end_note(state_dir, instance)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def has_ended(state_dir: Path, instance: str) -> bool:
    """Whether the supervisor ``instance`` noted its end."""
    return bool(instance) and _end_note(state_dir, instance).exists()


def forget_ends(state_dir: Path, needed: Collection[str]) -> None:
    """Remove the notes of all supervisors but those that are still ``needed``."""
    for note in state_dir.glob(f"{_END_PREFIX}*"):
        if note.name.removeprefix(_END_PREFIX) not in needed:
            note.unlink(missing_ok=True)


def _end_note(state_dir: Path, instance: str) -> Path:
    return state_dir / f"{_END_PREFIX}{instance}"


@contextlib.contextmanager
def _opened(state_dir: Path) -> Iterator[int]:
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _address(folder: int) -> str:
    # A socket's path has room for 107 bytes, which a state directory may well exceed.
    return f"/proc/self/fd/{folder}/{SOCKET_NAME}"
