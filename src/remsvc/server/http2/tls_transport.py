"""TLS between a connection and its socket.

asyncio's own costs 300 kB of memory for each connection from the moment it is accepted, lets all
handshakes whose messages have come run before anything else does, and tells a client nothing of why it
is refused. Here a peer that has sent nothing has no TLS state at all, and handshakes have turns.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from remsvc.http2.input_turns import InputTurns
from remsvc.server.http2.connection import ServerConnection

_INPUT_BYTES = 32 * 1024
# A record that asks for new keys costs 60 µs in 27 bytes. Before a caller was verified, so much is taken in a
# turn; and what comes without carrying data is bounded, beside the part of a record whose rest is to come.
_STRANGERS_INPUT_BYTES = 4 * 1024
_RECORD_OVERHEAD = 40
_MOST_WITHOUT_DATA = 20 * 1024


class TlsTurns:
    """What the connections of a server that are encrypted share.

    Attributes:
        handshakes: turns for parts of handshakes, which cost a hundred times what a message does.
        messages: turns for what was received while its connection could not take it.
        input_buffer: what was received last; of no use after it was taken in.
    """

    def __init__(self, messages: InputTurns) -> None:
        self.handshakes = InputTurns()
        self.messages = messages
        self.input_buffer = memoryview(bytearray(_INPUT_BYTES))


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """What a connection sends and receives through: the protocol of its socket, and its own transport.

    ``connection`` is made when the handshake is done, and never if it fails.

    Args:
        connection: speaks inside.
        context: of the server's side.
        shared: with all others.

    Attributes:
        handshake: done when the handshake is over: with an empty text, or with why it failed.
    """

    def __init__(self, connection: ServerConnection, context: ssl.SSLContext, shared: TlsTurns) -> None:
        super().__init__()
        self.handshake: asyncio.Future[str] = connection.loop.create_future()
        self._connection = connection
        self._context = context
        self._shared = shared
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None  # before anything has come
        self._socket: asyncio.Transport | None = None
        self._queued = False  # for a turn
        self._paused = False  # by the connection
        self._receiving = True
        self._writable = True
        self._without_data = 0
        self._ended = False  # by ourselves: nothing can be written, and nothing is decrypted any more

    # The socket's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._socket = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self._shared.input_buffer
        return buffer[:_STRANGERS_INPUT_BYTES] if self._is_strangers else buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._ended:
            if self._connection.made:
                self._connection.buffer_updated(nbytes)  # which only counts now
            return
        self._incoming.write(self._shared.input_buffer[:nbytes])
        if not self._connection.made:
            self._ask(self._shared.handshakes)
        elif self._is_strangers:
            self._ask(self._shared.messages)
        elif not (self._queued or self._paused):
            self._receive()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection.made:
            self._connection.connection_lost(exc)
        else:
            self._note_handshake("closed by the peer")
        self._socket = None

    def pause_writing(self) -> None:
        self._writable = False
        if self._connection.made:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        if self._connection.made:
            self._connection.resume_writing()

    @property
    def _is_strangers(self) -> bool:
        return not self._connection.identity

    # Turns

    def _ask(self, turns: InputTurns) -> None:
        """Take in what has come when it is this connection's turn, and receive nothing more until then."""
        if not self._queued:
            self._queued = True
            self._receive_more(False)
            turns.ask(self, self._connection.shares_turns)

    def take_rest(self) -> None:
        """See :class:`~remsvc.http2.input_turns.InputTurns`."""
        self._queued = False
        if self._socket is None or self._socket.is_closing() or self._ended:
            return
        if self._connection.made:
            self._receive()
        else:
            self._shake_hands()

    def cut(self, reason: str) -> None:
        """End it at once."""
        self._connection.cut(reason)
        self.abort()

    def _receive_more(self, receiving: bool) -> None:
        if self._socket is not None and receiving is not self._receiving:
            self._receiving = receiving
            if receiving:
                self._socket.resume_reading()
            else:
                self._socket.pause_reading()

    # What comes in

    def _shake_hands(self) -> None:
        if self._tls is None:
            self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            self._receive_more(True)
        except (ssl.SSLError, ssl.CertificateError) as error:
            self._send()  # what the peer is told
            self.close()
            self._note_handshake(getattr(error, "reason", None) or str(error))
        else:
            self._send()
            self._connection.connection_made(self)
            self._note_handshake("")
            self._receive()

    def _note_handshake(self, fault: str) -> None:
        """It is over."""
        if not self.handshake.done():  # nobody waits for it any more
            self.handshake.set_result(fault)

    def _receive(self) -> None:
        """Decrypt what has come, and hand it over, until the connection wants no more."""
        more = True
        while more and not self._paused and not self._ended and not self.is_closing():
            buffer = self._connection.get_buffer(-1)
            size, more = self._decrypt(buffer)
            if self._without_data > _MOST_WITHOUT_DATA or (self._outgoing.pending and not self._writable):
                self._connection.cut("makes TLS work for nothing")
                return
            self._send()
            if size:
                self._connection.buffer_updated(size)
        self._receive_more(not (self._paused or self._queued))

    def _decrypt(self, buffer: memoryview) -> tuple[int, bool]:
        """How much of ``buffer`` was filled, and whether there is more."""
        tls, incoming = self._tls, self._incoming
        assert tls is not None
        size, records, before = 0, 0, incoming.pending
        try:
            # Not until it wants more: the exception would cost as much as a record.
            while more := incoming.pending > 0 or tls.pending() > 0:
                if size == len(buffer):
                    break
                got = tls.read(len(buffer) - size, buffer[size:])
                if not got:  # the peer sends nothing more
                    self.close()
                    return size, False
                size += int(got)
                records += 1
            return size, more
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # the peer has broken the rules
            self._send()
            self.close()
        finally:
            carried = size + records * _RECORD_OVERHEAD
            self._without_data = max(self._without_data + before - incoming.pending - carried, 0)
        return size, False

    # The connection's transport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._tls is None or self._ended or self.is_closing():
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError:
            self.abort()
            return
        self._send()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.write(b"".join(list_of_data))

    def _send(self) -> None:
        if self._outgoing.pending and self._socket is not None:
            self._socket.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._end()
        self._receive_more(True)
        if self._socket is not None and not self._socket.is_closing():
            self._socket.write_eof()

    def close(self) -> None:
        self._end()
        if self._socket is not None:
            self._socket.close()

    def abort(self) -> None:
        self._ended = True
        if self._socket is not None:
            self._socket.abort()

    def _end(self) -> None:
        """Tell the peer that nothing more comes."""
        if not self._ended and self._tls is not None and self._connection.made:
            with suppress(ssl.SSLError):  # the peer need not answer
                self._tls.unwrap()
            self._send()
        self._ended = True

    def pause_reading(self) -> None:
        self._paused = True
        self._receive_more(False)

    def resume_reading(self) -> None:
        self._paused = False
        # Of a record that was larger than the buffer, the rest is decrypted already: no packet announces it.
        decrypted = self._tls is not None and self._tls.pending() > 0
        if not self._ended and (decrypted or self._incoming.pending):
            self._ask(self._shared.messages)
        elif not self._queued:
            self._receive_more(True)

    def is_reading(self) -> bool:
        return not self._paused

    def is_closing(self) -> bool:
        return self._socket is None or self._socket.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size() if self._socket is not None else 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._socket.get_write_buffer_limits() if self._socket is not None else (0, 0)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._socket is not None:
            self._socket.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return self._socket.get_extra_info(name, default) if self._socket is not None else default
