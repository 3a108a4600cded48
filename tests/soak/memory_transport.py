"""A connection's transport without a socket, whose other end does what a session says.

It does for its protocol what asyncio's own transports do, the awkward moments included: a write may be
buffered, and writing paused, in the middle of the call; reading goes on in a later turn of the loop; what was
sent last may never be taken; with TLS what was decrypted is handed over even where reading was paused, as
Python 3.10 does it, and not all that waits to be taken is counted.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any


class _TlsObject:
    """What a TLS connection says of itself."""

    def __init__(self, protocol: str | None) -> None:
        self._protocol = protocol

    def selected_alpn_protocol(self) -> str | None:
        return self._protocol

    def getpeercert(self, binary_form: bool = False) -> None:
        return None


class MemoryTransport(asyncio.Transport):
    """The server's end.

    Args:
        protocol: which it serves.
        kind: ``plain``, ``tls``, or ``tls-http1`` for a peer that does not ask for HTTP/2.
        report: told what may never happen.

    Attributes:
        taken: what the other end has taken so far.
        lost: whether the protocol was told that the connection is lost.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BufferedProtocol,
        kind: str,
        report: Callable[[str, BaseException | None], None],
    ) -> None:
        # Our layer of TLS is a transport like the one below it, and says who is at its other end.
        super().__init__(
            {"ssl_object": _TlsObject("h2" if kind != "tls-http1" else None)} if kind != "plain" else {}
        )
        self._loop = loop
        self._protocol = protocol
        self._report = report
        self._incoming = bytearray()
        self._incoming_eof = False
        self._reading_paused = False
        self._reading_soon = False
        self._outgoing = bytearray()
        self._room = 0
        self._high, self._low = 64 * 1024, 16 * 1024
        self._writing_paused = False
        self._eof = False
        self._closing = False
        self._losing = False
        self._writes_left: int | None = None
        self.taken = bytearray()
        self.lost = False
        self._guarded(protocol.connection_made, self)

    # For the other end

    def give(self, data: bytes) -> None:
        """Send so much to the protocol."""
        self._incoming += data
        self._read_soon()

    def take(self, size: int) -> None:
        """Take so many bytes more, now or once they are there."""
        self._room += size
        self._write_on()

    @property
    def has_unread(self) -> bool:
        """Whether the protocol has something to read that was sent, and goes on reading."""
        return bool(self._incoming) and not self._closing

    @property
    def unsent(self) -> int:
        """Bytes that the protocol has written and the other end has not taken, unless it is closing."""
        return 0 if self._closing or self._eof else len(self._outgoing)

    def give_eof(self) -> None:
        """Send nothing more."""
        self._incoming_eof = True
        self._read_soon()

    def reset(self, writes: int) -> None:
        """Be gone; the protocol learns of it a little later, or when it has written so many times more."""
        self._writes_left = writes
        self._loop.call_soon(self._force_close, ConnectionResetError(errno.ECONNRESET, "reset"))

    # For the protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing and not self._reading_paused

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._read_soon()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high, self._low = high, high // 4

    def get_write_buffer_size(self) -> int:
        return len(self._outgoing)

    def write(self, data: Any) -> None:
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._losing:
            return
        if self._writes_left is not None:
            self._writes_left -= 1
            if self._writes_left < 0:
                self._force_close(ConnectionResetError(errno.EPIPE, "reset"))
            return
        self._outgoing += data
        self._take_out()
        if self.get_write_buffer_size() > self._high and not self._writing_paused:
            self._writing_paused = True
            self._guarded(self._protocol.pause_writing)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        self._eof = True
        if self._writes_left is not None and not self._outgoing:
            raise OSError(errno.ENOTCONN, "not connected")

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._outgoing:
                self._lose_soon(None)

    def abort(self) -> None:
        self._force_close(None)

    # Itself

    def _read_soon(self) -> None:
        if not self._reading_soon:
            self._reading_soon = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._reading_soon = False
        if self._losing or self._closing:
            return
        if self._incoming and not self._reading_paused:
            buffer = memoryview(self._protocol.get_buffer(-1))
            size = min(len(buffer), len(self._incoming))
            buffer[:size] = self._incoming[:size]
            del self._incoming[:size]
            self._guarded(self._protocol.buffer_updated, size)
        if self._incoming_eof and not self._incoming and not self._reading_paused:
            self._incoming_eof = False
            self._guarded(self._protocol.eof_received)
            self.close()
        elif self._incoming and not self._reading_paused:
            self._read_soon()

    def _write_on(self) -> None:
        if self._losing or not self._outgoing:
            return
        self._take_out()
        if self._writing_paused and self.get_write_buffer_size() <= self._low:
            self._writing_paused = False
            self._guarded(self._protocol.resume_writing)
        if self._closing and not self._outgoing:
            self._lose_soon(None)

    def _take_out(self) -> None:
        size = min(self._room, len(self._outgoing))
        self.taken += self._outgoing[:size]
        del self._outgoing[:size]
        self._room -= size

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
            self._report(f"{method.__name__}() raised {error!r}", error)
            self._force_close(error)
