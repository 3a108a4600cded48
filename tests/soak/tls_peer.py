"""The other end of a connection that is encrypted, and what both ends need for that."""

from __future__ import annotations

import ssl
import tempfile
from functools import cache
from pathlib import Path

from remsvc.server.tls.config import TlsConfig, server_context
from tests.contract.certificates import Authority
from tests.soak.memory_transport import MemorySocket, Report

_OWN_BYTES = 2_000


class TlsPeer(MemorySocket):
    """A socket whose other end encrypts what it sends, as soon as it can.

    Args:
        protocol: which it asks for by ALPN.
    """

    def __init__(self, protocol: str, *, windows: bool, report: Report) -> None:
        super().__init__(windows=windows, report=report)
        self._from_server, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _client_context(protocol).wrap_bio(
            self._from_server, self._to_server, server_hostname="127.0.0.1"
        )
        self._decrypted = bytearray()
        self._seen = 0  # of what was taken
        self._waiting = b""  # for the handshake to be done
        self._shaken = False
        self._broken = False
        self.look()

    @property
    def received(self) -> bytearray:
        return self._decrypted

    @property
    def unsent(self) -> int:
        # What belongs to the handshake, and what closes TLS, is none of the connection's.
        return max(super().unsent - _OWN_BYTES, 0) if self._shaken else 0

    def give(self, data: bytes) -> None:
        self._waiting += data
        self.look()

    def give_unencrypted(self, data: bytes) -> None:
        """Send what is no TLS, or what is TLS of nobody's session."""
        super().give(data)

    def look(self) -> None:
        """Go on with what has come."""
        try:
            if len(self.taken) > self._seen:
                self._from_server.write(bytes(self.taken[self._seen :]))
                self._seen = len(self.taken)
            elif self._shaken and not self._waiting:
                return
            if not self._broken:
                self._go_on()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._broken = True  # by what it was sent itself, mostly: the server has told it, and closes
        if self._to_server.pending:
            super().give(self._to_server.read())

    def _go_on(self) -> None:
        if not self._shaken:
            self._tls.do_handshake()
            self._shaken = True
        if self._waiting:
            self._tls.write(self._waiting)
            self._waiting = b""
        while data := self._tls.read(65_536):
            self._decrypted += data


@cache
def server_tls() -> TlsConfig:
    """What the server encrypts with."""
    with tempfile.TemporaryDirectory() as directory:
        identity = Authority(Path(directory)).issue("server")
        context = server_context(identity.certificate, identity.key)
    return TlsConfig(b"", b"", None, False, context)


@cache
def _client_context(protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context
