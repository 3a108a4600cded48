"""Connections without a network: a socket whose other end does what a session says, and its transport.

The transport does for its protocol what asyncio's own do, the awkward moments included: a write may be
buffered, and writing paused, in the middle of the call; reading goes on in a later turn of the loop; what was
sent last may never be taken; and on Windows a read that was under way when reading was paused still comes.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

# The system takes so much whatever the other end does.
_KERNEL_BYTES = 4_096

Report = Callable[[str, BaseException | None], None]


class MemorySocket:
    """A connection's socket, as the server accepts it; its other end is the methods that a session calls.

    Args:
        windows: whether one more read comes after reading was paused.
        report: told what may never happen.

    Attributes:
        taken: what the other end has taken.
        incoming: what it has sent, and was not read.
    """

    def __init__(self, *, windows: bool, report: Report) -> None:
        self.windows = windows
        self.report = report
        self.incoming = bytearray()
        self.incoming_eof = False
        self.taken = bytearray()
        self.room = _KERNEL_BYTES
        self.writes_left: int | None = None
        self._closed = False
        self._transport: MemoryTransport | None = None

    # For the other end

    def give(self, data: bytes) -> None:
        """Send so much."""
        self.incoming += data
        if self._transport is not None:
            self._transport.read_soon()

    def take(self, size: int) -> None:
        """Take so many bytes more, now or once they are there."""
        self.room += size
        if self._transport is not None:
            self._transport.write_on()

    def give_eof(self) -> None:
        """Send nothing more."""
        self.incoming_eof = True
        if self._transport is not None:
            self._transport.read_soon()

    def reset(self, writes: int) -> None:
        """Be gone; the server learns of it a little later, or when it has written so many times more."""
        self.writes_left = writes
        if self._transport is not None:
            self._transport.reset_soon()

    @property
    def is_accepted(self) -> bool:
        """Whether the server has accepted it."""
        return self._closed or self._transport is not None

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed it: with its transport, where it has one."""
        return self._closed if self._transport is None else self._transport.lost

    @property
    def received(self) -> bytearray:
        """What the other end makes of what it has taken."""
        return self.taken

    @property
    def has_unread(self) -> bool:
        """Whether there is something for the server to read, which goes on reading."""
        return bool(self.incoming) and self._transport is not None and self._transport.reads

    @property
    def unsent(self) -> int:
        """Bytes that the server has written and the other end has not taken, unless it is closing."""
        return self._transport.unsent if self._transport is not None else 0

    # For the server

    def setsockopt(self, *_: object) -> None:
        """Nothing of it matters here."""

    def close(self) -> None:
        """Close it; what it has as a transport is to be closed as well."""
        self._closed = True

    def connect(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BufferedProtocol) -> MemoryTransport:
        """Its transport; the protocol is told in a moment."""
        self._transport = MemoryTransport(loop, self, protocol)
        return self._transport


class MemoryTransport(asyncio.Transport):
    """The server's end of a socket.

    Attributes:
        lost: whether its protocol was told that the connection is lost.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, socket: MemorySocket, protocol: asyncio.BufferedProtocol
    ) -> None:
        super().__init__()
        self._loop = loop
        self._socket = socket
        self._protocol = protocol
        self._connected = False
        self._reading_paused = False
        self._reading_soon = False
        self._outgoing = bytearray()
        self._high, self._low = 64 * 1024, 16 * 1024
        self._writing_paused = False
        self._eof = False
        self._closing = False
        self._losing = False
        self.lost = False
        loop.call_soon(self._make)

    # For its socket

    @property
    def reads(self) -> bool:
        """Whether it is not closing; where reading is paused, it goes on sometime."""
        return not self._closing

    @property
    def unsent(self) -> int:
        """See :class:`MemorySocket`."""
        return 0 if self._closing or self._eof else len(self._outgoing)

    def read_soon(self) -> None:
        """There is something to be read."""
        if self._connected and not self._reading_soon:
            self._reading_soon = True
            self._loop.call_soon(self._read)

    def write_on(self) -> None:
        """There is room for what was written."""
        if self._losing or not self._outgoing:
            return
        self._take_out()
        if self._writing_paused and len(self._outgoing) <= self._low:
            self._writing_paused = False
            self._guarded(self._protocol.resume_writing)
        if self._closing and not self._outgoing:
            self._lose_soon(None)

    def reset_soon(self) -> None:
        """The other end is gone."""
        self._loop.call_soon(self._force_close, ConnectionResetError(errno.ECONNRESET, "reset"))

    # For the protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing and not self._reading_paused

    def pause_reading(self) -> None:
        self._reading_paused = True
        if self._socket.windows and self._socket.incoming:
            self._loop.call_soon(self._read_once)

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.read_soon()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high, self._low = high, high // 4

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return len(self._outgoing)

    def write(self, data: Any) -> None:
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._losing or not data:
            return
        socket = self._socket
        if socket.writes_left is not None:
            socket.writes_left -= 1
            if socket.writes_left < 0:
                self._force_close(ConnectionResetError(errno.EPIPE, "reset"))
            return
        self._outgoing += data
        self._take_out()
        if len(self._outgoing) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._guarded(self._protocol.pause_writing)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        self._eof = True
        if self._socket.writes_left is not None and not self._outgoing:
            raise OSError(errno.ENOTCONN, "not connected")

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._outgoing:
                self._lose_soon(None)

    def abort(self) -> None:
        self._force_close(None)

    # Itself

    def _make(self) -> None:
        self._guarded(self._protocol.connection_made, self)
        self._connected = True
        self.read_soon()
        if self._socket.writes_left is not None:
            self.reset_soon()

    def _read(self) -> None:
        self._reading_soon = False
        if self._losing or self._closing or self._reading_paused:
            return
        self._read_once()
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        socket = self._socket
        if self._reading_paused:
            return
        if socket.incoming:
            self.read_soon()
        elif socket.incoming_eof:
            socket.incoming_eof = False
            self._guarded(self._protocol.eof_received)
            self.close()

    def _read_once(self) -> None:
        incoming = self._socket.incoming
        if self._losing or self._closing or not incoming:
            return
        buffer = memoryview(self._protocol.get_buffer(-1))
        size = min(len(buffer), len(incoming))
        buffer[:size] = incoming[:size]
        del incoming[:size]
        self._guarded(self._protocol.buffer_updated, size)

    def _take_out(self) -> None:
        socket = self._socket
        size = min(socket.room, len(self._outgoing))
        socket.taken += self._outgoing[:size]
        del self._outgoing[:size]
        socket.room -= size

    def _force_close(self, error: Exception | None) -> None:
        self._outgoing.clear()
        self._closing = True
        self._lose_soon(error)

    def _lose_soon(self, error: Exception | None) -> None:
        if not self._losing:
            self._losing = True
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        self.lost = True
        self._guarded(self._protocol.connection_lost, error)

    def _guarded(self, method: Callable[..., object], *args: object) -> None:
        """Call the protocol. What it raises, asyncio logs as a fatal error, and ends the connection."""
        try:
            method(*args)
        except Exception as error:  # noqa: BLE001
            self._socket.report(f"{method.__name__}() raised {error!r}", error)
            self._force_close(error)
