"""What TLS says of a connection: whether HTTP/2 is spoken, and which certificate the client has shown."""

from __future__ import annotations

import ssl
from typing import Any

from remsvc.server.identity.authentication import NO_CERTIFICATE, ShownCertificate

PROTOCOL = "h2"
_REMEMBERED = 1024


def speaks_http2(tls: ssl.SSLObject) -> bool:
    """Whether both sides have agreed on HTTP/2; who does not ask for it gets nothing else."""
    return tls.selected_alpn_protocol() == PROTOCOL


class ShownCertificates:
    """The certificates that clients show.

    A session that is resumed shows the client's certificate alone, which is in the ticket. The chain that
    came with it when the session began is remembered: it may be needed once the authorities have changed.
    """

    def __init__(self) -> None:
        self._chains: dict[bytes, bytes] = {}

    def of(self, tls: ssl.SSLObject) -> ShownCertificate:
        """The client's certificate, which TLS has checked, and the chain that came with it."""
        certificate = tls.getpeercert(binary_form=True)
        if certificate is None:
            return NO_CERTIFICATE
        if tls.session_reused:
            chain = self._chains.get(certificate, b"")
        else:
            chain = b"".join(_pem(each) for each in _chain(tls) if each != certificate)
            self._chains.pop(certificate, None)
            if chain:
                self._chains[certificate] = chain
                if len(self._chains) > _REMEMBERED:
                    del self._chains[next(iter(self._chains))]
        return ShownCertificate.of(_pem(certificate), chain)


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


def _chain(tls: Any) -> list[bytes]:
    if hasattr(tls, "get_unverified_chain"):  # Python 3.13
        return list(tls.get_unverified_chain() or ())
    # Before, it is there, and not documented.
    import _ssl

    return [
        certificate.public_bytes(_ssl.ENCODING_DER)
        for certificate in tls._sslobj.get_unverified_chain() or ()
    ]
