"""Sends audit records to the system's log as well: to syslog, or to journald, which listens in its place."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

DEFAULT_SOCKET = Path("/dev/log")
_PRIORITY = 10 * 8 + 5  # facility authpriv, severity notice
_SEND_SECONDS = 1.0
_SHORT = 1900  # what every receiver takes (RFC 5424 section 6.1)


class Syslog:
    """Sends one datagram a line. Blocking, for at most a second; used by one thread."""

    def __init__(self, path: Path = DEFAULT_SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, line: bytes) -> None:
        """Send a line. One that is too long for the receiver is cut. Raises ``OSError``."""
        message = f"<{_PRIORITY}>remsvc-audit[{os.getpid()}]: ".encode() + line.rstrip(b"\n")
        try:
            self._send(message)
        except OSError as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise
            self._send(message)  # the receiver was started again

    def _send(self, message: bytes) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(_SEND_SECONDS)
            self._socket.connect(str(self._path))
        try:
            self._socket.send(message)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._socket.send(message[:_SHORT] + b"...")

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
