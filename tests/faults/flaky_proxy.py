"""A TCP proxy that loses, delays and breaks connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time


class FlakyProxy:
    """Forwards connections to ``target`` from a port of its own, until told otherwise.

    Attributes:
        delay: seconds that every piece of data waits.
        carried: bytes that went through so far.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.delay = 0.0
        self.carried = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._silenced: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def reset(self) -> int:
        """Break all connections with an RST; how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)
                end.close()
        return len(pairs)

    def silence(self) -> None:
        """Swallow all that comes over the connections that there are, and keep them open: half-open."""
        with self._lock:
            self._silenced.update(end for pair in self._pairs for end in pair)

    def close(self) -> None:
        self._closing = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=10)
                server.settimeout(None)  # a silence is no failure
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.add((client, server))
            for source, sink in ((client, server), (server, client)):
                thread = threading.Thread(target=self._carry, args=(source, sink), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(16384):
                if self.delay:
                    time.sleep(self.delay)
                if source in self._silenced:
                    continue
                sink.sendall(data)
                self.carried += len(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
