"""The HTTP/2 transport for blocking calls from any thread.

All calls share one connection. One of the threads that wait for answers reads for all of them, and the
others wait until it has read something. asyncio is never imported, and ``ssl`` only where the connection is
encrypted.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress

from remsvc.client.http2.attempts import Attempts
from remsvc.client.http2.blocking_dial import dial, wait_for
from remsvc.client.http2.call import ClientCall
from remsvc.client.http2.endpoint import (
    ATTEMPT_SECONDS,
    BEGIN_ATTEMPTS,
    CLOSED,
    TIMED_OUT,
    ConnectError,
    Endpoint,
    os_reason,
    shown_address,
)
from remsvc.client.http2.session import ClientSession, NotBegunError
from remsvc.client.options import HTTP2, ConnectionOptions
from remsvc.client.transport import Answer, CallError, Readiness
from remsvc.status import Metadata, StatusCode

_INPUT_BYTES = 32 * 1024
_MOST_UNSENT = 256 * 1024
# While the caller of a stream is busy with an answer, somebody looks after the connection so often, in
# seconds.
_LOOK_SECONDS = 1.0


class Http2Transport:
    """Carries blocking calls by our own HTTP/2: a :class:`~remsvc.client.transport.Transport`.

    Raises:
        ConfigurationError: the options cannot be used.
    """

    name = HTTP2

    def __init__(self, options: ConnectionOptions) -> None:
        self._endpoint = Endpoint.of(options)
        self._connecting = threading.Lock()
        self._connection: _BlockingConnection | None = None
        self._attempts = Attempts()
        self._closed = threading.Event()

    @property
    def readiness(self) -> Readiness:
        if self._closed.is_set():
            return Readiness.CLOSED
        if self._usable() is not None:
            return Readiness.READY
        return Readiness.UNTRIED if self._attempts.failure is None else Readiness.BROKEN

    def unary(
        self,
        method: str,
        request: bytes,
        *,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool = False,
    ) -> Answer:
        deadline = None if timeout is None else time.monotonic() + timeout
        for attempt in range(BEGIN_ATTEMPTS):
            connection = self._connected(deadline, wait_for_ready)
            call = ClientCall(method, (request,), metadata, single=True, deadline=deadline)
            with connection.running(call):
                connection.wait_until_ended(call)
            if not isinstance(call.error, NotBegunError) or attempt == BEGIN_ATTEMPTS - 1:
                break
        return call.result()

    def stream(
        self, method: str, requests: Iterable[bytes], *, timeout: float | None, metadata: Metadata
    ) -> Generator[bytes, None, None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        unsent = iter(requests)
        for attempt in range(BEGIN_ATTEMPTS):
            connection = self._connected(deadline, False)
            call = ClientCall(method, unsent, metadata, single=False, deadline=deadline)
            with connection.running(call), connection.looked_after():
                while (answer := connection.next_answer(call)) is not None:
                    yield answer
            if not isinstance(call.error, NotBegunError) or attempt == BEGIN_ATTEMPTS - 1:
                break
        call.raise_error()

    def close(self) -> None:
        self._closed.set()
        if (connection := self._connection) is not None:
            connection.close(CLOSED, StatusCode.CANCELLED)

    def _usable(self) -> _BlockingConnection | None:
        connection = self._connection
        return connection if connection is not None and connection.is_usable() else None

    def _connected(self, deadline: float | None, wait_for_ready: bool) -> _BlockingConnection:
        """A connection for a call; makes one where there is none. Raises :class:`CallError`."""
        if (connection := self._usable()) is not None:
            return connection
        patience = -1.0 if deadline is None else max(deadline - time.monotonic(), 0.0)
        if not self._connecting.acquire(timeout=patience):
            raise _too_late()
        try:
            while True:
                if self._closed.is_set():
                    raise CallError(StatusCode.UNAVAILABLE, CLOSED, sent=False)
                if (connection := self._usable()) is not None:
                    return connection
                if pause := self._attempts.pause():
                    if not wait_for_ready:
                        self._attempts.raise_failure()
                    if deadline is not None and time.monotonic() + pause >= deadline:
                        self._closed.wait(max(deadline - time.monotonic(), 0.0))
                        raise _too_late()
                    self._closed.wait(pause)
                self._connect(deadline)
                if not wait_for_ready:
                    self._attempts.raise_failure()
        finally:
            self._connecting.release()

    def _connect(self, deadline: float | None) -> None:
        """Make a connection, or note why it could not be made."""
        limit = time.monotonic() + ATTEMPT_SECONDS
        own = deadline if deadline is not None and deadline < limit else limit
        try:
            self._connection = _BlockingConnection(self._endpoint, own)
        except ConnectError as error:
            if own is deadline and time.monotonic() >= own:
                raise _too_late() from error
            self._attempts.failed(str(error))
        else:
            self._attempts.succeeded()
            if self._closed.is_set():  # meanwhile: close() has seen no connection
                self._connection.close(CLOSED, StatusCode.CANCELLED)


class _BlockingConnection:
    """One connection to a server. The constructor waits until the server has sent its settings.

    Args:
        endpoint: where it leads.
        deadline: until when it must be made, in seconds of the monotonic clock.

    Raises:
        ConnectError: it could not be made.
    """

    def __init__(self, endpoint: Endpoint, deadline: float) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._socket = dial(endpoint, deadline)
        self._session = ClientSession(
            scheme=endpoint.scheme,
            authority=str(endpoint.target),
            keepalive=endpoint.keepalive,
            now=time.monotonic(),
        )
        self._input = memoryview(bytearray(_INPUT_BYTES))
        self._unsent = bytearray()
        self._reading = self._writing = False
        self._heard = time.monotonic()
        self._streams = 0
        self._keeper: threading.Thread | None = None
        self._over = threading.Event()
        try:
            self._greet(deadline)
        except BaseException:
            self._socket.close()
            raise

    def _greet(self, deadline: float) -> None:
        try:
            peer = f"{shown_address(self._socket.getpeername())}: "
        except OSError:
            peer = ""
        session = self._session
        with self._lock:
            while not session.settled and session.ended is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ConnectError(f"{peer}{TIMED_OUT}")
                self._receive(left)
        if session.ended is not None:
            raise ConnectError(f"{peer}{session.ended}")

    # Calls

    def is_usable(self) -> bool:
        """Whether calls may begin on it. First takes in what has come: the server may go away."""
        with self._lock:
            if not self._reading and self._session.ended is None:
                self._receive(0.0)
            if self._session.going_away and self._session.idle:
                self._close_now()
            return not self._session.going_away

    @contextmanager
    def running(self, call: ClientCall) -> Generator[None, None, None]:
        """A block in which a call runs: begins it, and ends it at the latest at the block's end."""
        with self._lock:
            self._session.begin(call, time.monotonic())
            self._send()
        try:
            yield
        finally:
            with self._lock:
                if not call.ended:
                    self._session.end(call, CallError(StatusCode.CANCELLED, "Cancelled"))
                    self._send()

    def wait_until_ended(self, call: ClientCall) -> None:
        """Wait until a call has ended."""
        with self._lock:
            while not call.ended:
                self._wait(call)

    def next_answer(self, call: ClientCall) -> bytes | None:
        """Wait for a call's next answer; None where the call has ended and no answer is left."""
        with self._lock:
            while True:
                if (answer := self._session.read(call)) is not None:
                    self._send()
                    return answer
                if call.ended:
                    return None
                self._wait(call)

    def close(self, reason: str, code: StatusCode = StatusCode.UNAVAILABLE) -> None:
        """Let every call fail for this reason, and close the connection."""
        with self._lock:
            words = self._session.say_goodbye()
            self._session.close(reason, code)
            if words and not self._unsent:
                with suppress(OSError):  # it closes anyway
                    self._socket.send(words)
            self._close_now()
            keeper = self._keeper
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join()

    def _close_now(self) -> None:
        self._over.set()
        self._session.close("the connection was closed")
        with suppress(OSError):  # it is not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
        if not self._reading and not self._writing:
            self._socket.close()
        self._changed.notify_all()

    # Waiting

    def _wait(self, call: ClientCall) -> None:
        """Wait until something may have happened to a call, at most until its deadline. Needs the lock."""
        left = None
        if call.deadline is not None:
            left = call.deadline - time.monotonic()
            if left <= 0:
                self._session.end(call, CallError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
                self._send()
                return
        if not self._reading:
            self._receive(left)
        elif self._unsent and not self._writing:
            # The thread that reads has begun to wait before there was anything to send, so this one sends
            # it.
            self._writing = True
            try:
                self._outside([], [self._socket], left)
            finally:
                self._writing = False
            self._send()
            if self._session.ended is not None:
                self._close_now()
        else:
            self._changed.wait(left)

    def _receive(self, patience: float | None) -> None:
        """Read for all threads, and send what waits, for at most so many seconds. Needs the lock."""
        session = self._session
        self._reading = True
        try:
            now = time.monotonic()
            again = session.tick(now)
            self._send()
            if session.ended is None and patience != 0.0:
                until_tick = max(again - now, 0.0)
                limit = until_tick if patience is None else min(patience, until_tick)
                self._outside([self._socket], [self._socket] if self._unsent else [], limit)
            more = session.ended is None
            while more:
                more = self._take() and session.ended is None
            self._send()
        finally:
            self._reading = False
            if session.ended is not None:
                self._close_now()
            self._changed.notify_all()

    def _outside(
        self, reading: list[socket.socket], writing: list[socket.socket], limit: float | None
    ) -> None:
        """Wait for the network without the lock."""
        self._lock.release()
        try:
            wait_for(reading, writing, limit)
        except (OSError, ValueError):
            pass  # it was closed meanwhile
        finally:
            self._lock.acquire()

    def _take(self) -> bool:
        """Take in what has come; returns whether more is here for certain."""
        session = self._session
        try:
            size = self._socket.recv_into(self._input)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if _must_wait(error):
                return False
            session.close(f"Socket closed: {os_reason(error)}")
            return False
        if not size:
            session.close("Socket closed")
            return False
        self._heard = now = time.monotonic()
        data = self._input[:size]
        while data:
            data = data[session.take(data, now) :]
        pending = getattr(self._socket, "pending", None)  # with TLS some may be decrypted already
        return pending is not None and pending() > 0

    def _send(self) -> None:
        """Send what waits to be sent, as much as the server takes now. Needs the lock."""
        session = self._session
        while True:
            if len(self._unsent) < _MOST_UNSENT:
                self._unsent += session.to_send(time.monotonic())
            if not self._unsent:
                return
            try:
                sent = self._socket.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if not _must_wait(error):
                    # What the server has said before it closed is read first: it may say why.
                    self._unsent.clear()
                    if session.ended is not None:
                        return
                    while self._take() and session.ended is None:
                        pass
                    session.close(f"Socket closed: {os_reason(error)}")
                return
            del self._unsent[:sent]
            if not self._unsent and not session.has_more:
                return

    # While the caller of a stream does something else

    @contextmanager
    def looked_after(self) -> Generator[None, None, None]:
        """A block in which a thread answers the server's pings while the caller is busy.

        Otherwise the server would take the caller for one that has gone.
        """
        with self._lock:
            self._streams += 1
            if self._keeper is None or not self._keeper.is_alive():
                keeper = threading.Thread(target=self._look_after, name="remsvc-connection")
                keeper.start()
                self._keeper = keeper  # once it runs: Ctrl-C may come at any step, and close() joins it
        try:
            yield
        finally:
            with self._lock:
                self._streams -= 1

    def _look_after(self) -> None:
        # This thread is no daemon, which could be stopped while it holds the lock. It notices the end of
        # the program by itself.
        while threading.main_thread().is_alive() and not self._over.wait(_LOOK_SECONDS):
            # Ctrl-C in a bad moment leaves the lock with a thread that never gives it back.
            if not self._lock.acquire(timeout=_LOOK_SECONDS):
                continue
            try:
                if not self._streams or self._session.ended is not None:
                    self._keeper = None
                    return
                if not self._reading and time.monotonic() - self._heard >= _LOOK_SECONDS:
                    self._receive(0.0)
            finally:
                self._lock.release()


def _must_wait(error: OSError) -> bool:
    """Whether TLS only has to wait for the network. Told by its name, ``ssl`` need not be imported."""
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


def _too_late() -> CallError:
    return CallError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", sent=False)
