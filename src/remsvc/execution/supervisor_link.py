"""The supervisor's end of a connection to a server, and where it listens for one."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from remsvc.execution.frames import FrameReader, Header, encode_frame

SOCKET_NAME = "supervisor.sock"
_END_PREFIX = "supervisor.ended."
_READ = 1 << 16  # memory that the system maps and unmaps for each call costs more than a second call


class Link:
    """One connection: messages in, messages out, never blocking.

    Args:
        on_message: called with each message.
        on_end: called once when the other side has gone.
    """

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        on_message: Callable[[Header], None],
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

    def send(self, header: Header, blobs: Sequence[bytes] = ()) -> None:
        """Send a message, now or when there is room. After the end it goes nowhere."""
        self.put(header, blobs)
        self.flush()

    def put(self, header: Header, blobs: Sequence[bytes] = ()) -> None:
        """Send a message with the next one, or with :meth:`flush`."""
        if not self._closed:
            self._unsent += encode_frame(header, blobs)

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
        for header, _ in self._frames.feed(data):
            self._on_message(header)

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


def listen(state_dir: Path) -> socket.socket:
    """Listen in ``state_dir``, for its owner alone. Raises ``OSError``."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (state_dir / SOCKET_NAME).unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listener.bind(_address(folder))
        finally:
            os.umask(mask)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(folder)
    listener.listen(1)
    listener.setblocking(False)
    return listener


def connect(state_dir: Path) -> socket.socket | None:
    """Connect to the supervisor that listens in ``state_dir``; None where there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(_address(folder))
        finally:
            os.close(folder)
    except (FileNotFoundError, ConnectionError):
        connection.close()
        return None
    return connection


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


def _address(folder: int) -> str:
    # A socket's path has room for 107 bytes, which a state directory may well exceed.
    return f"/proc/self/fd/{folder}/{SOCKET_NAME}"
